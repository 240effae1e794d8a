// RunAndWait: lets a thread that is not a loop's own do something on the loop and wait for it:
// mains, when they build and take down what lives there.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/synchronization/notification.h"
#include "common/runtime/loop.h"

namespace longhaul {

// Not from the loop itself, and not after the loop has stopped: it would wait for ever.
inline void RunAndWait(Loop& loop, absl::FunctionRef<void()> task) {
  absl::Notification done;
  loop.Post([&] {
    task();
    done.Notify();
  });
  done.WaitForNotification();
}

}  // namespace longhaul
