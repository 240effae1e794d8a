// A scripted decode worker for tests of the router: the test answers each Generate by hand, and
// token t of a sequence is a pure function of its position, as with real sampling.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/engine/fingerprint.h"
#include "common/engine/worker_client.h"
#include "common/runtime/loop.h"

namespace longhaul {

class FakeWorker {
 public:
  struct Attempt {
    GenerateRequest request;
    WorkerClient::OnEvent on_event;
    WorkerClient::OnDone done;
    bool open = true;  // false: ended or cancelled
    bool cancelled = false;

    int next = 0;  // tokens sent

    // Sends `count` tokens; token i of the whole output is 1000 + i.
    void Tokens(int count, bool finish = false) {
      GenerateEvent event;
      const int before = request.tokens_size() - request.prompt_tokens() + next;
      for (int i = 0; i < count; ++i) event.add_tokens()->set_token(1000 + before + i);
      if (next == 0) {
        auto* timing = event.mutable_timing();
        timing->set_path(request.prefill_names_size() > 0 ? "remote" : "local");
        if (request.prefill_names_size() > 0) timing->set_prefill_name(request.prefill_names(0));
        timing->set_kv_bytes(4096);
        timing->set_kv_us(1500);
        timing->set_cached_tokens(2);
      }
      next += count;
      if (finish) event.mutable_finished()->set_reason(GenerateEvent::Finished::LENGTH);
      Send(std::move(event));
      if (finish) End(absl::OkStatus());
    }
    void Send(GenerateEvent event) {
      if (open) on_event(std::move(event));
    }
    void End(absl::Status status) {
      if (!std::exchange(open, false)) return;
      done(std::move(status));
    }
  };

  FakeWorker(std::string name, std::string role, uint64_t incarnation) {
    status.set_name(std::move(name));
    status.set_role(std::move(role));
    status.set_incarnation(incarnation);
    status.mutable_fingerprint()->set_protocol_version(kProtocolVersion);
    status.mutable_fingerprint()->set_block_tokens(16);
    status.set_blocks_total(1000);
    status.set_context_tokens_max(8000);
  }

  // All of the below on the loop.
  void Report() {
    if (watching) on_status(status);
  }
  void BreakStatus() {
    if (!std::exchange(watching, false)) return;
    status_done(absl::UnavailableError("connection reset"));
  }
  // As a process that is killed: every stream breaks.
  void Die() {
    reachable = false;
    BreakStatus();
    for (auto& attempt : std::vector<std::shared_ptr<Attempt>>(attempts)) {
      attempt->End(absl::UnavailableError("connection reset"));
    }
  }
  int open_attempts() const {
    int open = 0;
    for (const auto& attempt : attempts) open += attempt->open;
    return open;
  }

  WorkerStatus status;
  bool reachable = true;
  bool watching = false;
  StatusClient::OnStatus on_status;
  StatusClient::OnDone status_done;
  std::vector<std::shared_ptr<Attempt>> attempts;
  absl::AnyInvocable<void(Attempt&)> on_generate;  // if set, called for each new attempt
};

class FakeWorkerClient final : public WorkerClient {
 public:
  FakeWorkerClient(Loop* loop, FakeWorker* worker) : loop_(loop), worker_(worker) {}

  std::unique_ptr<WorkerCall> Generate(GenerateRequest request, OnEvent on_event,
                                       OnDone done) override {
    auto attempt = std::make_shared<FakeWorker::Attempt>();
    attempt->request = std::move(request);
    attempt->on_event = std::move(on_event);
    attempt->done = std::move(done);
    worker_->attempts.push_back(attempt);
    loop_->Post([worker = worker_, attempt] {
      if (!attempt->open) return;
      if (!worker->reachable) {
        attempt->End(absl::UnavailableError("connection refused"));
      } else if (worker->on_generate) {
        worker->on_generate(*attempt);
      }
    });
    return std::make_unique<Call>([attempt] {
      attempt->cancelled = attempt->open;
      attempt->open = false;
    });
  }

  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override {
    auto open = std::make_shared<bool>(true);
    loop_->Post([worker = worker_, open, on_status = std::move(on_status),
                 done = std::move(done)]() mutable {
      if (!*open) return;
      if (!worker->reachable) return done(absl::UnavailableError("connection refused"));
      worker->on_status = std::move(on_status);
      worker->status_done = std::move(done);
      worker->watching = true;
      worker->Report();
    });
    return std::make_unique<Call>([open] { *open = false; });
  }

 private:
  class Call final : public WorkerCall {
   public:
    explicit Call(absl::AnyInvocable<void()> closed) : closed_(std::move(closed)) {}
    ~Call() override { closed_(); }

   private:
    absl::AnyInvocable<void()> closed_;
  };

  Loop* const loop_;
  FakeWorker* const worker_;
};

}  // namespace longhaul
