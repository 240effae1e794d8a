#include "kv_transfer/ucx/ucx_sender.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "common/base/log.h"

namespace longhaul {
namespace {

// Runs of at least this many bytes are sent from where they lie; shorter ones are gathered first,
// because each message costs some microseconds on both sides: as much as a device needs to gather
// and spread some megabytes.
constexpr int64_t kDirectBytesMin = 128 << 10;
constexpr int64_t kDeviceDirectBytesMin = 4 << 20;
// Messages from this size on are fetched by the receiver, smaller ones are sent along.
constexpr int64_t kFetchBytesMin = 64 << 10;
// Gathered segments of host memory stay in the second-level cache; a device's are as long as the
// others.
constexpr int64_t kGatherBytesMax = 512 << 10;
// Segments of one message on their way at a time: enough to keep the wire busy, few enough that
// Cancel is quick.
constexpr int kSegmentsInFlightMax = 8;
constexpr int kStagingBuffersMax = 16;
// UCX ends the operations of an endpoint that is closed by force within a few rounds of progress.
constexpr int kQuiesceRoundsMax = 4096;

}  // namespace

UcxSender::UcxSender(UcxTransport* transport, std::unique_ptr<UcxWorker> worker, uint64_t link_id,
                     int64_t segment_bytes_max, bool network)
    : UcxLink(transport, std::move(worker), link_id),
      segment_bytes_max_(segment_bytes_max),
      on_device_(memory().kind() != MemoryKind::kHost),
      direct_bytes_min_(on_device_ ? kDeviceDirectBytesMin : kDirectBytesMin),
      network_(network),
      staging_(buffers(), kStagingBuffersMax) {}

UcxSender::~UcxSender() { Shutdown(); }

absl::StatusOr<std::unique_ptr<Link>> UcxSender::Make(UcxTransport* transport,
                                                      std::unique_ptr<UcxWorker> worker,
                                                      const UcxAddress& peer, bool network) {
  const int64_t segment_bytes_max =
      std::min(transport->segment_bytes_max(), static_cast<int64_t>(peer.segment_bytes_max));
  if (segment_bytes_max <= 0) {
    return absl::InvalidArgumentError("the receiver's address allows no segment");
  }
  auto link = std::unique_ptr<UcxSender>(
      new UcxSender(transport, std::move(worker), peer.link_id, segment_bytes_max, network));
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(peer.worker.data());
  // Peer mode tells of a broken connection but rules out shared memory.
  params.err_mode = network ? UCP_ERR_HANDLING_MODE_PEER : UCP_ERR_HANDLING_MODE_NONE;
  params.err_handler.cb = [](void* arg, ucp_ep_h, ucs_status_t status) {
    static_cast<UcxWorker*>(arg)->endpoint_error = status;
  };
  params.err_handler.arg = link->worker_.get();
  const ucs_status_t status = ucp_ep_create(link->worker(), &params, &link->endpoint_);
  if (status != UCS_OK) {
    link->endpoint_ = nullptr;
    return UcxError(status, "UCX cannot connect to the receiver's address");
  }
  if (network) link->Greet();
  return link;
}

void UcxSender::Receive(TransferTag, std::vector<ReceivePiece>, TransferDone) {
  LH_CHECK(false, "Receive on the sending end of a link");
}

void UcxSender::Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) {
  if (closed()) return Finish(std::move(done), absl::CancelledError("the link is closed"));
  const auto [message, inserted] =
      messages_.emplace(tag, std::make_unique<Message>(std::move(pieces), std::move(done)));
  LH_CHECK(inserted, absl::StrCat("tag ", tag, " sent twice"));
  PumpMessage(tag);
}

void UcxSender::Cancel(TransferTag tag) {
  const auto message = messages_.find(tag);
  if (message == messages_.end() || std::exchange(message->second->cancelled, true)) return;
  // Segments that nobody wants wait at the other end: without them this end would never be over.
  if (message->second->in_flight > 0) SendNote(kAbandonMessage, tag, "");
  Queue(tag);
}

void UcxSender::Queue(TransferTag tag) {
  Message& message = *messages_.at(tag);
  if (!std::exchange(message.queued, true)) to_pump_.push_back(tag);
}

void UcxSender::Pump() {
  if (worker_->endpoint_error != UCS_OK) {
    return Fail(UcxError(worker_->endpoint_error, "the receiver is gone"));
  }
  for (size_t left = to_pump_.size(); left > 0; --left) {
    const TransferTag tag = to_pump_.front();
    to_pump_.pop_front();
    messages_.at(tag)->queued = false;
    PumpMessage(tag);
  }
}

// Nothing of ours is given to UCX before the greeting is over, so that a link that ends early can
// be buried.
void UcxSender::Greet() {
  UcxWorker* const worker = worker_.get();
  worker->greeted = false;
  worker->greeting_header = {link_id_, 0, 0, 0, 1};
  ucp_request_param_t params{};
  params.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_AM_SEND_FLAG_RNDV;  // so that it ends only when the receiver has let go of it
  params.cb.send = [](void* request, ucs_status_t, void* user_data) {
    ucp_request_free(request);
    static_cast<UcxWorker*>(user_data)->greeted = true;
  };
  params.user_data = worker;
  const ucs_status_ptr_t request = ucp_am_send_nbx(
      endpoint_, kGreetingMessage, &worker->greeting_header, sizeof(worker->greeting_header),
      &worker->greeting, sizeof(worker->greeting), &params);
  worker->greeted = !UCS_PTR_IS_PTR(request);
}

void UcxSender::PumpMessage(TransferTag tag) {
  const auto found = messages_.find(tag);
  Message& message = *found->second;
  const auto over = [&] { return message.begun && message.posted_bytes == message.bytes; };
  const auto goes_on = [&] { return message.status.ok() && !message.cancelled && !over(); };
  if (goes_on() && !worker_->greeted) return Queue(tag);
  while (goes_on() && message.in_flight < kSegmentsInFlightMax) {
    PostNextSegment(tag, message);
  }
  if (message.in_flight > 0 || message.queued) return;
  if (message.status.ok() && !over()) {
    message.status = absl::CancelledError("the transfer was cancelled");
  }
  Finish(std::move(message.done), message.status);
  messages_.erase(found);
  if (!path_told_ && !path().empty()) {
    path_told_ = true;
    WarnOfStaging();
    SendNote(kPathMessage, 0, path_);
  }
}

void UcxSender::PostNextSegment(TransferTag tag, Message& message) {
  auto segment = std::make_unique<Segment>();
  segment->header = {link_id_, tag, static_cast<uint64_t>(message.bytes),
                     static_cast<uint64_t>(message.posted_bytes), network_ ? 1u : 0u};
  SendCursor& cursor = message.cursor;
  const std::byte* data = nullptr;
  int64_t bytes = 0;
  if (!cursor.at_end()) {
    const int64_t left_bytes = message.bytes - message.posted_bytes;
    const bool direct = cursor.run_bytes() >= std::min(direct_bytes_min_, left_bytes);
    if (!direct) segment->staging = Gather(cursor, bytes);
    if (segment->staging == nullptr) {
      data = cursor.data();
      bytes = std::min(cursor.run_bytes(), segment_bytes_max_);
      cursor.Advance(bytes);
    } else {
      data = segment->staging->data();
    }
  }
  message.begun = true;
  message.posted_bytes += bytes;
  ++message.in_flight;
  Post(kSegmentMessage, std::move(segment), memory().kind(), data, bytes);
}

UcxStaging::Buffer UcxSender::Gather(SendCursor& cursor, int64_t& bytes) {
  const int64_t bytes_max =
      on_device_ ? segment_bytes_max_ : std::min(kGatherBytesMax, segment_bytes_max_);
  if (cursor.run_bytes() > bytes_max) return nullptr;
  absl::StatusOr<UcxStaging::Buffer> staging = staging_.Take();
  // No memory for it: many short segments are slow, but right.
  if (!staging.ok() || *staging == nullptr) return nullptr;
  std::vector<KvMemory::Run> runs;
  while (!cursor.at_end() && cursor.run_bytes() < direct_bytes_min_ &&
         bytes + cursor.run_bytes() <= bytes_max) {
    runs.push_back({(*staging)->data() + bytes, cursor.data(), cursor.run_bytes()});
    bytes += cursor.run_bytes();
    cursor.Advance(cursor.run_bytes());
  }
  memory().Copy(runs);
  return *std::move(staging);
}

void UcxSender::SendNote(UcxMessageId id, TransferTag tag, std::string text) {
  auto segment = std::make_unique<Segment>();
  segment->note = true;
  segment->header = {link_id_, tag, 0, 0, network_ ? 1u : 0u};
  segment->text = std::move(text);
  const char* data = segment->text.data();
  const int64_t bytes = static_cast<int64_t>(segment->text.size());
  Post(id, std::move(segment), MemoryKind::kHost, data, bytes);
}

void UcxSender::Post(UcxMessageId id, std::unique_ptr<Segment> owned, MemoryKind kind,
                     const void* data, int64_t bytes) {
  Segment* const segment = owned.release();
  segment->sender = this;
  segments_.insert(segment);
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.cb.send = [](void* request, ucs_status_t status, void* user_data) {
    ucp_request_free(request);
    auto* const ended = static_cast<Segment*>(user_data);
    ended->sender->SegmentEnded(ended, status);
  };
  params.user_data = segment;
  params.op_attr_mask |= UCP_OP_ATTR_FIELD_FLAGS;
  // Lets the receiver close its endpoint to us when it must end without us.
  if (network_) params.flags |= UCP_AM_SEND_FLAG_REPLY;
  // Large messages wait here for their receive, not in the receiver's memory; what lies on a device
  // is fetched at any size, because sending it along would take it through the host.
  const bool on_device = kind != MemoryKind::kHost && bytes > 0;
  if (on_device) SetMemoryKind(kind, params);
  if (on_device || bytes >= kFetchBytesMin ||
      static_cast<uint64_t>(bytes) < segment->header.message_bytes) {
    params.flags |= UCP_AM_SEND_FLAG_RNDV;
  }
  const ucs_status_ptr_t request = ucp_am_send_nbx(endpoint_, id, &segment->header,
                                                   sizeof(segment->header), data, bytes, &params);
  if (request == nullptr) {
    SegmentEnded(segment, UCS_OK);
  } else if (UCS_PTR_IS_ERR(request)) {
    SegmentEnded(segment, UCS_PTR_STATUS(request));
  }
}

void UcxSender::SegmentEnded(Segment* segment, ucs_status_t status) {
  segments_.erase(segment);
  const std::unique_ptr<Segment> owned(segment);
  if (segment->staging != nullptr) staging_.GiveBack(std::move(segment->staging));
  if (segment->note) return;
  Message& message = *messages_.at(segment->header.tag);
  --message.in_flight;
  if (status != UCS_OK && message.status.ok()) {
    message.status = UcxError(status, "UCX could not send to the receiver");
  }
  Queue(segment->header.tag);
}

void UcxSender::WarnOfStaging() const {
  if (memory().kind() != MemoryKind::kCuda || network_ || absl::StrContains(path_, "cuda_ipc")) {
    return;
  }
  static std::atomic<bool> told = false;  // once a process: it is the same for every link
  if (told.exchange(true)) return;
  LogWarning("kv_staged_through_host",
             {{"path", path_},
              {"advice",
               "device memory of two processes of one host should cross by cuda_ipc: give both "
               "containers the same pid and ipc namespaces and see that both see the GPU"}});
}

UcxLink::Rest UcxSender::Quiesce() {
  if (endpoint_ == nullptr) return Rest::kDestroyNow;
  path();  // it cannot be asked later
  // Without peer mode a forced close ends no operation; destroying the worker does.
  if (!network_) return Rest::kDestroyNow;
  if (!worker_->greeted) return Rest::kBury;
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_EP_CLOSE_FLAG_FORCE;
  worker_->pending = ucp_ep_close_nbx(endpoint_, &params);
  for (int round = 0; round < kQuiesceRoundsMax && !segments_.empty(); ++round) {
    ucp_worker_progress(worker());
  }
  return segments_.empty() ? Rest::kBury : Rest::kDestroyNow;
}

void UcxSender::EndAll(const absl::Status& status) {
  for (Segment* segment : segments_) {
    if (segment->staging != nullptr) staging_.GiveBack(std::move(segment->staging));
    delete segment;
  }
  segments_.clear();
  to_pump_.clear();
  for (auto& [tag, message] : std::exchange(messages_, {}))
    Finish(std::move(message->done), status);
}

std::string UcxSender::path() const {
  if (path_.empty() && !closed()) path_ = ReadPath();
  return path_.empty() ? std::string("ucx") : path_;
}

// UCX tells which transports an endpoint uses only in a text for people: "#   lane[0]:
// 1:sysv/memory.0 md[1] -> ...".
std::string UcxSender::ReadPath() const {
  char* text = nullptr;
  size_t bytes = 0;
  FILE* const stream = open_memstream(&text, &bytes);
  ucp_ep_print_info(endpoint_, stream);
  fclose(stream);
  std::vector<std::string> transports;
  for (const absl::string_view line : absl::StrSplit(absl::string_view(text, bytes), '\n')) {
    const size_t lane = line.find("lane[");
    const size_t slash = line.find('/');
    if (lane == absl::string_view::npos || slash == absl::string_view::npos) continue;
    const size_t colon = line.rfind(':', slash);
    if (colon == absl::string_view::npos || colon < lane) continue;
    const std::string transport(line.substr(colon + 1, slash - colon - 1));
    if (std::find(transports.begin(), transports.end(), transport) == transports.end()) {
      transports.push_back(transport);
    }
  }
  free(text);
  return absl::StrJoin(transports, "+");
}

}  // namespace longhaul
