#include "common/http/exchange.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/http/connection.h"

namespace longhaul {

Exchange::Exchange(std::shared_ptr<Edge> edge, std::weak_ptr<Connection> connection,
                   uint64_t number, std::shared_ptr<Flow> flow, Facts facts,
                   int64_t queue_bytes_max)
    : edge_(std::move(edge)),
      connection_(std::move(connection)),
      number_(number),
      flow_(std::move(flow)),
      facts_(std::move(facts)),
      queue_bytes_max_(queue_bytes_max) {}

Exchange::~Exchange() {
  if (phase_ == Phase::kOpen && flow_->open) {
    RespondError(*this, 500, "unanswered", "The server dropped this request without an answer.");
  } else if (phase_ == Phase::kStreaming) {
    Abort();
  }
}

std::string Exchange::Head(int status, const HttpHeaders& headers, int64_t content_length,
                           bool chunked) {
  until_close_ = content_length < 0 && !chunked && has_body_;
  ResponseFacts facts;
  facts.status = status;
  facts.content_length = content_length;
  facts.chunked = chunked;
  facts.close = !facts_.keep_alive || until_close_ || edge_->draining;
  facts.keep_alive_named = facts_.version_minor == 0;
  facts.request_id = facts_.request_id;
  return ResponseHead(facts, headers);
}

void Exchange::Send(std::string bytes, AnswerEnd end) {
  flow_->queued_bytes += static_cast<int64_t>(bytes.size());
  edge_->Post(
      [connection = connection_, number = number_, bytes = std::move(bytes), end]() mutable {
        if (const auto live = connection.lock()) live->Send(number, std::move(bytes), end);
      });
}

void Exchange::Respond(int status, HttpHeaders headers, std::string body) {
  if (dead()) return;
  LH_CHECK(phase_ == Phase::kOpen, "a second answer to one request");
  phase_ = Phase::kEnded;
  // HEAD is told the length that GET would have; 204 and 304 have none.
  const bool has_length = HasBody("GET", status);
  has_body_ = HasBody(facts_.method, status);
  std::string answer = Head(status, headers, has_length ? static_cast<int64_t>(body.size()) : -1,
                            /*chunked=*/false);
  if (has_body_) answer += body;
  Send(std::move(answer), AnswerEnd::kWhole);
}

void Exchange::StartStream(int status, HttpHeaders headers) {
  if (dead()) return;
  LH_CHECK(phase_ == Phase::kOpen, "a second answer to one request");
  phase_ = Phase::kStreaming;
  has_body_ = HasBody(facts_.method, status);
  chunked_ = facts_.version_minor > 0 && HasBody("GET", status);
  Send(Head(status, headers, -1, chunked_), AnswerEnd::kNone);
}

bool Exchange::Write(std::string bytes) {
  if (dead()) return false;
  LH_CHECK(phase_ == Phase::kStreaming, "Write outside of a stream");
  if (bytes.empty() || !has_body_) return true;  // an empty chunk would end the stream
  if (chunked_) bytes = absl::StrCat(absl::Hex(bytes.size()), "\r\n", bytes, "\r\n");
  const int64_t queued = flow_->queued_bytes + static_cast<int64_t>(bytes.size());
  if (queued > queue_bytes_max_) {
    flow_->open = false;
    edge_->Post([connection = connection_, number = number_, queued] {
      if (const auto live = connection.lock()) live->DropSlowReader(number, queued);
    });
    return false;
  }
  Send(std::move(bytes), AnswerEnd::kNone);
  return true;
}

void Exchange::End() {
  if (dead()) return;
  LH_CHECK(phase_ == Phase::kStreaming, "End outside of a stream");
  phase_ = Phase::kEnded;
  Send(chunked_ && has_body_ ? "0\r\n\r\n" : "",
       until_close_ ? AnswerEnd::kClosed : AnswerEnd::kWhole);
}

void Exchange::Abort() {
  if (dead() || phase_ == Phase::kEnded) return;
  phase_ = Phase::kAborted;
  Send("", AnswerEnd::kAborted);
}

int64_t Exchange::queued_bytes() const { return flow_->open ? flow_->queued_bytes.load() : 0; }

void Exchange::OnClientGone(absl::AnyInvocable<void()> gone) {
  edge_->Post(
      [connection = connection_, number = number_, flow = flow_, gone = std::move(gone)]() mutable {
        const auto live = connection.lock();
        if (live != nullptr && live->WatchClient(number, gone)) return;
        if (flow->gone) gone();
      });
}

}  // namespace longhaul
