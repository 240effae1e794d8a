// VirtualLoop: a Loop in simulated time. Nothing runs until Run* is called; time jumps from event
// to event. Tasks due at one instant run in the order of posting. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "common/runtime/loop.h"

namespace longhaul {

class VirtualLoop final : public Loop {
 public:
  int64_t NowUs() const override { return now_us_; }
  void Post(Task task) override { PostAfter(0, std::move(task)); }
  TimerId PostAfter(int64_t delay_us, Task task) override;
  void CancelTimer(TimerId id) override;

  // Runs the next event, moving time to it; false when there is none.
  bool RunOne();
  // Runs events until there are none, or `events_max` have run; returns how many ran.
  int64_t RunUntilIdle(int64_t events_max = 1'000'000'000);
  // Runs every event due within `duration_us` and moves time exactly that far.
  void RunFor(int64_t duration_us);

 private:
  int64_t now_us_ = 0;
  TimerId next_id_ = 1;
  std::map<std::pair<int64_t, TimerId>, Task> events_;
  absl::flat_hash_map<TimerId, int64_t> due_us_;
};

}  // namespace longhaul
