#include "common/engine/direct_worker_client.h"

#include <utility>

#include "common/engine/crossing_call.h"

namespace longhaul {
namespace {

template <typename Event>
class DirectCall final : public WorkerCall {
 public:
  using Crossing = CrossingCall<Event, WorkerCall>;
  DirectCall(Loop* owner_loop, Loop* worker_loop, typename Crossing::OnEvent on_event,
             typename Crossing::OnDone done, typename Crossing::Start start)
      : crossing_(owner_loop, worker_loop, std::move(on_event), std::move(done), std::move(start)) {
  }

 private:
  Crossing crossing_;
};

std::unique_ptr<WorkerCall> WatchAcross(Loop* owner_loop, Loop* worker_loop, StatusClient* worker,
                                        int64_t period_us, StatusClient::OnStatus on_status,
                                        StatusClient::OnDone done) {
  return std::make_unique<DirectCall<WorkerStatus>>(
      owner_loop, worker_loop, std::move(on_status), std::move(done),
      [worker, period_us](auto event, auto end) {
        return worker->WatchStatus(period_us, std::move(event), std::move(end));
      });
}

class DirectStatusClient final : public StatusClient {
 public:
  DirectStatusClient(Loop* owner_loop, Loop* worker_loop, StatusClient* worker)
      : owner_loop_(owner_loop), worker_loop_(worker_loop), worker_(worker) {}

  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override {
    return WatchAcross(owner_loop_, worker_loop_, worker_, period_us, std::move(on_status),
                       std::move(done));
  }

 private:
  Loop* const owner_loop_;
  Loop* const worker_loop_;
  StatusClient* const worker_;
};

class DirectWorkerClient final : public WorkerClient {
 public:
  DirectWorkerClient(Loop* owner_loop, Loop* worker_loop, WorkerClient* worker)
      : owner_loop_(owner_loop), worker_loop_(worker_loop), worker_(worker) {}

  std::unique_ptr<WorkerCall> Generate(GenerateRequest request, OnEvent on_event,
                                       OnDone done) override {
    return std::make_unique<DirectCall<GenerateEvent>>(
        owner_loop_, worker_loop_, std::move(on_event), std::move(done),
        [worker = worker_, request = std::move(request)](auto event, auto end) mutable {
          return worker->Generate(std::move(request), std::move(event), std::move(end));
        });
  }

  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override {
    return WatchAcross(owner_loop_, worker_loop_, worker_, period_us, std::move(on_status),
                       std::move(done));
  }

 private:
  Loop* const owner_loop_;
  Loop* const worker_loop_;
  WorkerClient* const worker_;
};

}  // namespace

std::unique_ptr<WorkerClient> MakeDirectWorkerClient(Loop* owner_loop, Loop* worker_loop,
                                                     WorkerClient* worker) {
  return std::make_unique<DirectWorkerClient>(owner_loop, worker_loop, worker);
}

std::unique_ptr<StatusClient> MakeDirectStatusClient(Loop* owner_loop, Loop* worker_loop,
                                                     StatusClient* worker) {
  return std::make_unique<DirectStatusClient>(owner_loop, worker_loop, worker);
}

}  // namespace longhaul
