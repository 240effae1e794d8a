// The server's HttpExchange. It never touches its connection: every call becomes a task on the
// connection's edge, which finds the connection gone or busy with a later request if it comes too
// late. Internal to common/http.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "common/http/edge.h"
#include "common/http/http_exchange.h"
#include "common/http/response_head.h"

namespace longhaul {

// What an exchange and its connection both see.
struct Flow {
  std::atomic<bool> open{true};   // false: nothing that is written can reach the client
  std::atomic<bool> gone{false};  // the client vanished before the answer ended
  std::atomic<int64_t> queued_bytes{0};
};

// How a piece of an answer ends it.
enum class AnswerEnd {
  kNone,
  kWhole,    // the answer is complete
  kClosed,   // complete, and its end is the end of the connection
  kAborted,  // flush, then close without completing it
};

class Exchange final : public HttpExchange {
 public:
  struct Facts {
    std::string method;
    std::string request_id;
    int version_minor = 1;
    bool keep_alive = true;
  };

  Exchange(std::shared_ptr<Edge> edge, std::weak_ptr<Connection> connection, uint64_t number,
           std::shared_ptr<Flow> flow, Facts facts, int64_t queue_bytes_max);
  ~Exchange() override;

  void Respond(int status, HttpHeaders headers, std::string body) override;
  void StartStream(int status, HttpHeaders headers) override;
  bool Write(std::string bytes) override;
  void End() override;
  void Abort() override;
  int64_t queued_bytes() const override;
  void OnClientGone(absl::AnyInvocable<void()> gone) override;

 private:
  enum class Phase { kOpen, kStreaming, kEnded, kAborted };

  std::string Head(int status, const HttpHeaders& headers, int64_t content_length, bool chunked);
  void Send(std::string bytes, AnswerEnd end);
  bool dead() const { return phase_ == Phase::kAborted || !flow_->open; }

  const std::shared_ptr<Edge> edge_;
  const std::weak_ptr<Connection> connection_;  // locked on the edge thread only
  const uint64_t number_;                       // which exchange of the connection this is
  const std::shared_ptr<Flow> flow_;
  const Facts facts_;
  const int64_t queue_bytes_max_;
  Phase phase_ = Phase::kOpen;
  bool has_body_ = true;
  bool chunked_ = false;
  bool until_close_ = false;  // the client finds the answer's end by the connection's
};

}  // namespace longhaul
