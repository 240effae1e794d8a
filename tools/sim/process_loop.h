// ProcessLoop: the loop thread of one simulated process, which can hang: what is due meanwhile
// waits, in order, until it goes on. The rest of the process (its connections, its wire) is not on
// it.
#pragma once

#include <cstdint>
#include <map>

#include "common/runtime/loop.h"

namespace longhaul {

class ProcessLoop final : public Loop {
 public:
  // `world` keeps the time; both outlive every task that was posted.
  explicit ProcessLoop(Loop* world) : world_(world) {}

  int64_t NowUs() const override { return world_->NowUs(); }
  void Post(Task task) override { PostAfter(0, std::move(task)); }
  TimerId PostAfter(int64_t delay_us, Task task) override;
  void CancelTimer(TimerId id) override;

  void Hang() { hangs_ = true; }
  void GoOn();
  bool hangs() const { return hangs_; }

 private:
  void Due(TimerId id);

  Loop* const world_;
  bool hangs_ = false;
  TimerId next_id_ = 1;
  uint64_t next_overdue_ = 1;
  struct Pending {
    TimerId timer = 0;     // of the world
    uint64_t overdue = 0;  // place among those that came due while it hung; 0: not due yet
    Task task;
  };
  std::map<TimerId, Pending> pending_;
  std::map<uint64_t, TimerId> overdue_;  // by place
};

}  // namespace longhaul
