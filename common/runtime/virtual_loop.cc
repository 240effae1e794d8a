#include "common/runtime/virtual_loop.h"

#include <algorithm>

namespace longhaul {

Loop::TimerId VirtualLoop::PostAfter(int64_t delay_us, Task task) {
  const TimerId id = next_id_++;
  const int64_t due_us = now_us_ + std::max<int64_t>(delay_us, 0);
  events_.emplace(std::make_pair(due_us, id), std::move(task));
  due_us_.emplace(id, due_us);
  return id;
}

void VirtualLoop::CancelTimer(TimerId id) {
  const auto due = due_us_.find(id);
  if (due == due_us_.end()) return;
  const auto event = events_.find({due->second, id});
  due_us_.erase(due);
  const Task dropped = std::move(event->second);
  events_.erase(event);
}

bool VirtualLoop::RunOne() {
  if (events_.empty()) return false;
  auto event = events_.extract(events_.begin());
  now_us_ = event.key().first;
  due_us_.erase(event.key().second);
  event.mapped()();
  return true;
}

int64_t VirtualLoop::RunUntilIdle(int64_t events_max) {
  int64_t ran = 0;
  while (ran < events_max && RunOne()) ++ran;
  return ran;
}

void VirtualLoop::RunFor(int64_t duration_us) {
  const int64_t end_us = now_us_ + duration_us;
  while (!events_.empty() && events_.begin()->first.first <= end_us) RunOne();
  now_us_ = end_us;
}

}  // namespace longhaul
