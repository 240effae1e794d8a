#include "common/engine/direct_worker_client.h"

#include <utility>

namespace longhaul {
namespace {

// Two halves, so that callbacks own nothing of the worker's and no cycle keeps a call alive.
template <typename Event>
struct NearSide {  // owner's loop
  absl::AnyInvocable<void(Event)> on_event;
  absl::AnyInvocable<void(absl::Status)> done;
  bool closed = false;
};
struct FarSide {  // worker's loop
  std::unique_ptr<WorkerCall> call;
  bool abandoned = false;
};

template <typename Event>
class CrossingCall final : public WorkerCall {
 public:
  using OnEvent = absl::AnyInvocable<void(Event)>;
  using OnDone = absl::AnyInvocable<void(absl::Status)>;
  using Start = absl::AnyInvocable<std::unique_ptr<WorkerCall>(OnEvent, OnDone)>;

  CrossingCall(Loop* owner_loop, Loop* worker_loop, OnEvent on_event, OnDone done, Start start)
      : worker_loop_(worker_loop),
        near_(std::make_shared<NearSide<Event>>()),
        far_(std::make_shared<FarSide>()) {
    near_->on_event = std::move(on_event);
    near_->done = std::move(done);
    worker_loop->Post([owner_loop, near = near_, far = far_, start = std::move(start)]() mutable {
      if (far->abandoned) return;
      far->call = start(
          [owner_loop, near](Event event) {
            owner_loop->Post([near, event = std::move(event)]() mutable {
              if (!near->closed) near->on_event(std::move(event));
            });
          },
          [owner_loop, near](absl::Status status) {
            owner_loop->Post([near, status = std::move(status)]() mutable {
              if (near->closed) return;
              near->closed = true;
              near->done(std::move(status));
            });
          });
    });
  }

  ~CrossingCall() override {
    near_->closed = true;
    worker_loop_->Post([far = std::move(far_)] {
      far->abandoned = true;
      far->call.reset();
    });
  }

 private:
  Loop* const worker_loop_;
  std::shared_ptr<NearSide<Event>> near_;
  std::shared_ptr<FarSide> far_;
};

std::unique_ptr<WorkerCall> WatchAcross(Loop* owner_loop, Loop* worker_loop, StatusClient* worker,
                                        int64_t period_us, StatusClient::OnStatus on_status,
                                        StatusClient::OnDone done) {
  return std::make_unique<CrossingCall<WorkerStatus>>(
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
    return std::make_unique<CrossingCall<GenerateEvent>>(
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
