// Loop: the door to time and to the order of events. Every stateful object of the house lives on
// exactly one Loop and is touched only by tasks that run there, so it needs no locks. Makers:
// ThreadLoop (an operating-system thread), VirtualLoop (simulated time, one thread, one seed).
#pragma once

#include <cstdint>

#include "absl/functional/any_invocable.h"

namespace longhaul {

class Loop {
 public:
  using Task = absl::AnyInvocable<void()>;
  using TimerId = uint64_t;  // never 0, never reused

  virtual ~Loop() = default;

  // Monotonic microseconds from an arbitrary start. Any thread. Durations may be compared across
  // hosts, instants never.
  virtual int64_t NowUs() const = 0;

  // Runs `task` on the loop, after all tasks posted before it. Any thread; never runs it inline. A
  // task posted to a loop that has stopped is destroyed unrun.
  virtual void Post(Task task) = 0;

  // Runs `task` on the loop no earlier than `delay_us` from now. Any thread.
  virtual TimerId PostAfter(int64_t delay_us, Task task) = 0;

  // Forgets a timer. On the loop itself this is exact: the task will not run. Unknown or spent ids
  // are ignored.
  virtual void CancelTimer(TimerId id) = 0;
};

}  // namespace longhaul
