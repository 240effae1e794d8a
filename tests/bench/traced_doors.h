// Doors between the services that note when a request passed them: for benchmarks of its way.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/notification.h"
#include "common/engine/prefill_client.h"
#include "common/engine/worker_client.h"

namespace longhaul {

enum Stamp { kSent, kGenerateCalled, kGenerateCame, kPrefillCalled, kPrefillCame, kStep, kStamps };

inline int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// The request under way: one at a time. Threads hand each other the request, and with it this.
struct Trace {
  void Mark(Stamp stamp) { at_ns[stamp] = NowNs(); }
  std::array<int64_t, kStamps> at_ns{};
  std::unique_ptr<absl::Notification> stepped;
};

// Doors that note the time and pass on.
class TracedWorkerClient final : public WorkerClient {
 public:
  TracedWorkerClient(Trace* trace, Stamp stamp, WorkerClient* next)
      : trace_(trace), stamp_(stamp), next_(next) {}
  TracedWorkerClient(Trace* trace, Stamp stamp, std::unique_ptr<WorkerClient> next)
      : TracedWorkerClient(trace, stamp, next.get()) {
    owned_ = std::move(next);
  }
  std::unique_ptr<WorkerCall> Generate(GenerateRequest request, OnEvent on_event,
                                       OnDone done) override {
    trace_->Mark(stamp_);
    return next_->Generate(std::move(request), std::move(on_event), std::move(done));
  }
  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override {
    return next_->WatchStatus(period_us, std::move(on_status), std::move(done));
  }

 private:
  Trace* const trace_;
  const Stamp stamp_;
  WorkerClient* const next_;
  std::unique_ptr<WorkerClient> owned_;
};

class TracedPrefillClient final : public PrefillClient {
 public:
  TracedPrefillClient(Trace* trace, std::unique_ptr<PrefillClient> next)
      : trace_(trace), next_(std::move(next)) {}
  std::unique_ptr<PrefillCall> Prefill(const std::string& address, PrefillCommand::Open open,
                                       OnPrefillEvent on_event, OnPrefillDone done) override {
    trace_->Mark(kPrefillCalled);
    return next_->Prefill(address, std::move(open), std::move(on_event), std::move(done));
  }

 private:
  Trace* const trace_;
  const std::unique_ptr<PrefillClient> next_;
};

class TracedPrefillEndpoint final : public PrefillEndpoint {
 public:
  TracedPrefillEndpoint(Trace* trace, PrefillEndpoint* next) : trace_(trace), next_(next) {}
  std::unique_ptr<PrefillCall> Prefill(PrefillCommand::Open open, OnPrefillEvent on_event,
                                       OnPrefillDone done) override {
    trace_->Mark(kPrefillCame);
    return next_->Prefill(std::move(open), std::move(on_event), std::move(done));
  }
  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override {
    return next_->WatchStatus(period_us, std::move(on_status), std::move(done));
  }

 private:
  Trace* const trace_;
  PrefillEndpoint* const next_;
};

}  // namespace longhaul
