#include "common/runtime/thread_loop.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "common/base/check.h"

namespace longhaul {
namespace {

int64_t MonotonicUs() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

ThreadLoop::ThreadLoop(ThreadLoopOptions options, Poller* poller)
    : options_(std::move(options)),
      poller_(poller),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  LH_CHECK(wake_fd_ >= 0, "eventfd failed: raise the limit on open files");
  thread_ = std::thread([this] { Run(); });
}

ThreadLoop::~ThreadLoop() {
  Stop();
  close(wake_fd_);
}

void ThreadLoop::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  Wake();
  if (thread_.joinable()) thread_.join();
  std::deque<Task> dropped_tasks;
  std::map<std::pair<int64_t, TimerId>, Task> dropped_timers;
  absl::MutexLock lock(&mutex_);
  dropped_tasks.swap(tasks_);
  dropped_timers.swap(timers_);
  timer_due_us_.clear();  // a late CancelTimer finds nothing
}

int64_t ThreadLoop::NowUs() const { return MonotonicUs(); }

void ThreadLoop::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

void ThreadLoop::Post(Task task) {
  bool wake = false;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    tasks_.push_back(std::move(task));
    wake = sleeping_;
  }
  if (wake) Wake();
}

Loop::TimerId ThreadLoop::PostAfter(int64_t delay_us, Task task) {
  const int64_t due_us = NowUs() + std::max<int64_t>(delay_us, 0);
  bool wake = false;
  TimerId id = 0;
  {
    absl::MutexLock lock(&mutex_);
    id = next_timer_++;
    if (stopping_) return id;
    timers_.emplace(std::make_pair(due_us, id), std::move(task));
    timer_due_us_.emplace(id, due_us);
    wake = sleeping_;
  }
  if (wake) Wake();
  return id;
}

void ThreadLoop::CancelTimer(TimerId id) {
  Task dropped;  // destroyed outside the lock: its captures may call back into the loop
  absl::MutexLock lock(&mutex_);
  const auto due = timer_due_us_.find(id);
  if (due == timer_due_us_.end()) return;
  const auto timer = timers_.find({due->second, id});
  dropped = std::move(timer->second);
  timers_.erase(timer);
  timer_due_us_.erase(due);
}

bool ThreadLoop::RunReady() {
  Task task;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return false;
    if (!timers_.empty() && timers_.begin()->first.first <= MonotonicUs()) {
      task = std::move(timers_.begin()->second);
      timer_due_us_.erase(timers_.begin()->first.second);
      timers_.erase(timers_.begin());
    } else if (!tasks_.empty()) {
      task = std::move(tasks_.front());
      tasks_.pop_front();
    } else {
      return false;
    }
  }
  task();
  return true;
}

void ThreadLoop::Wait() {
  int64_t timeout_us = -1;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_ || !tasks_.empty()) return;
    if (!timers_.empty()) {
      timeout_us = timers_.begin()->first.first - MonotonicUs();
      if (timeout_us <= 0) return;
    }
    sleeping_ = true;
  }
  pollfd fds[2] = {{wake_fd_, POLLIN, 0}, {-1, POLLIN, 0}};
  bool may_sleep = true;
  if (poller_ != nullptr) {
    fds[1].fd = poller_->WaitFd();
    if (fds[1].fd >= 0) {
      may_sleep = poller_->ArmWait();
    } else {
      timeout_us = timeout_us < 0 ? 1000 : std::min<int64_t>(timeout_us, 1000);
    }
  }
  if (may_sleep) {
    timespec timeout{};
    if (timeout_us >= 0) timeout = {timeout_us / 1'000'000, timeout_us % 1'000'000 * 1000};
    ppoll(fds, 2, timeout_us >= 0 ? &timeout : nullptr, nullptr);
    if (fds[0].revents != 0) {
      uint64_t drained = 0;
      [[maybe_unused]] const ssize_t got = read(wake_fd_, &drained, sizeof(drained));
    }
  }
  absl::MutexLock lock(&mutex_);
  sleeping_ = false;
}

void ThreadLoop::Run() {
  pthread_setname_np(pthread_self(), options_.name.substr(0, 15).c_str());
  if (options_.core >= 0) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(options_.core, &cores);
    pthread_setaffinity_np(pthread_self(), sizeof(cores), &cores);
  }
  while (true) {
    bool worked = RunReady();
    if (poller_ != nullptr) worked = poller_->Poll() || worked;
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;  // also while the poller always finds something to do
    }
    if (worked) {
      if (options_.spin_us > 0) last_work_us_ = MonotonicUs();
      continue;
    }
    if (options_.spin_us > 0 && MonotonicUs() - last_work_us_ < options_.spin_us) continue;
    Wait();
  }
}

}  // namespace longhaul
