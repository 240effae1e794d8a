#include "tools/sim/process_loop.h"

#include <utility>

namespace longhaul {

Loop::TimerId ProcessLoop::PostAfter(int64_t delay_us, Task task) {
  const TimerId id = next_id_++;
  pending_[id] = {world_->PostAfter(delay_us, [this, id] { Due(id); }), 0, std::move(task)};
  return id;
}

void ProcessLoop::CancelTimer(TimerId id) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  world_->CancelTimer(found->second.timer);
  overdue_.erase(found->second.overdue);
  const Pending dropped = std::move(found->second);
  pending_.erase(found);
}

void ProcessLoop::Due(TimerId id) {
  const auto found = pending_.find(id);
  Pending& pending = found->second;
  const bool queues = pending.overdue == 0 && (hangs_ || !overdue_.empty());
  if (queues) {
    pending.overdue = next_overdue_++;
    overdue_.emplace(pending.overdue, id);
  }
  if (hangs_) return;
  if (queues) {  // it has just gone on: behind those that have waited longer
    pending.timer = world_->PostAfter(0, [this, id] { Due(id); });
    return;
  }
  overdue_.erase(pending.overdue);
  Task task = std::move(pending.task);
  pending_.erase(found);
  task();
}

void ProcessLoop::GoOn() {
  hangs_ = false;
  for (const auto& [place, id] : overdue_) {
    Pending& pending = pending_.at(id);
    world_->CancelTimer(pending.timer);
    pending.timer = world_->PostAfter(0, [this, id = id] { Due(id); });
  }
}

}  // namespace longhaul
