// CrossingCall: a call whose two ends live on different Loops of one process. It carries the start
// and the end of the call to the far loop and the callbacks back to the near one. The two halves
// own nothing of each other, so that no cycle keeps a call alive.
#pragma once

#include <memory>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "common/runtime/loop.h"

namespace longhaul {

// `FarCall`: what the far side holds while the call is open; destroying it there cancels.
template <typename Event, typename FarCall>
class CrossingCall {
 public:
  using OnEvent = absl::AnyInvocable<void(Event)>;
  using OnDone = absl::AnyInvocable<void(absl::Status)>;
  using Start = absl::AnyInvocable<std::unique_ptr<FarCall>(OnEvent, OnDone)>;

  // `start` runs on the far loop; the callbacks come on the near one, none after destruction.
  CrossingCall(Loop* near_loop, Loop* far_loop, OnEvent on_event, OnDone done, Start start)
      : far_loop_(far_loop), near_(std::make_shared<Near>()), far_(std::make_shared<Far>()) {
    near_->on_event = std::move(on_event);
    near_->done = std::move(done);
    far_loop->Post([near_loop, near = near_, far = far_, start = std::move(start)]() mutable {
      if (far->abandoned) return;
      far->call = start(
          [near_loop, near](Event event) {
            near_loop->Post([near, event = std::move(event)]() mutable {
              if (!near->closed) near->on_event(std::move(event));
            });
          },
          [near_loop, near](absl::Status status) {
            near_loop->Post([near, status = std::move(status)]() mutable {
              if (near->closed) return;
              near->closed = true;
              near->done(std::move(status));
            });
          });
    });
  }

  ~CrossingCall() {
    near_->closed = true;
    far_loop_->Post([far = std::move(far_)] {
      far->abandoned = true;
      far->call.reset();
    });
  }
  CrossingCall(const CrossingCall&) = delete;
  CrossingCall& operator=(const CrossingCall&) = delete;

  // Runs `task` on the far side's call, after everything asked before.
  void OnFar(absl::AnyInvocable<void(FarCall&)> task) {
    far_loop_->Post([far = far_, task = std::move(task)]() mutable {
      if (far->call != nullptr) task(*far->call);
    });
  }

 private:
  struct Near {  // near loop only
    OnEvent on_event;
    OnDone done;
    bool closed = false;
  };
  struct Far {  // far loop only
    std::unique_ptr<FarCall> call;
    bool abandoned = false;
  };

  Loop* const far_loop_;
  std::shared_ptr<Near> near_;
  std::shared_ptr<Far> far_;
};

}  // namespace longhaul
