// Completions: the callbacks of one end of a link on their way to its Loop, for makers whose
// operations may end anywhere. Callbacks are run by a task on the loop, or by Run when the link is
// destroyed before that task came.
#pragma once

#include <deque>
#include <memory>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/runtime/loop.h"
#include "kv_transfer/transport.h"

namespace longhaul {

class Completions {
 public:
  // `loop` outlives this.
  explicit Completions(Loop* loop) : loop_(loop) {}

  // Any thread; runs nothing inline.
  static void Add(const std::shared_ptr<Completions>& to, TransferDone done, absl::Status status) {
    bool post = false;
    {
      absl::MutexLock lock(&to->mutex_);
      post = to->ready_.empty();
      to->ready_.emplace_back(std::move(done), std::move(status));
    }
    if (post) to->loop_->Post([to] { to->Run(); });
  }

  // The end's loop only.
  void Run() {
    std::deque<std::pair<TransferDone, absl::Status>> ready;
    {
      absl::MutexLock lock(&mutex_);
      ready.swap(ready_);
    }
    for (auto& [done, status] : ready) std::move(done)(std::move(status));
  }

 private:
  Loop* const loop_;
  absl::Mutex mutex_;
  std::deque<std::pair<TransferDone, absl::Status>> ready_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace longhaul
