// ThreadLoop: a Loop on its own operating-system thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "common/runtime/loop.h"

namespace longhaul {

// What a loop thread does when it has no task: the transfer thread drives its links with it.
class Poller {
 public:
  virtual ~Poller() = default;
  // Makes progress; true when there was something to do. Loop thread only.
  virtual bool Poll() = 0;
  // A file descriptor that turns readable when Poll would find work, or -1 for none (then the loop
  // polls each millisecond while idle). Constant for the poller's life.
  virtual int WaitFd() const = 0;
  // Prepares WaitFd for waiting; false when there is work already, so do not wait. Loop thread
  // only.
  virtual bool ArmWait() = 0;
};

struct ThreadLoopOptions {
  std::string name = "loop";  // thread name, 15 characters at most
  int core = -1;              // pin to this core; -1 leaves placement to the kernel
  int64_t spin_us = 0;        // keep polling this long after the last work before sleeping
};

class ThreadLoop final : public Loop {
 public:
  // `poller` may be null; when given it must outlive the loop.
  explicit ThreadLoop(ThreadLoopOptions options, Poller* poller = nullptr);
  // Stops the thread after the task that runs now; tasks not yet run are destroyed.
  ~ThreadLoop() override;

  int64_t NowUs() const override;
  void Post(Task task) override;
  TimerId PostAfter(int64_t delay_us, Task task) override;
  void CancelTimer(TimerId id) override;

  // Joins the thread. Idempotent; not from the loop itself. After it the poller is no longer
  // called.
  void Stop();

 private:
  void Run();
  bool RunReady();
  void Wait();
  void Wake();

  const ThreadLoopOptions options_;
  Poller* const poller_;
  const int wake_fd_;
  int64_t last_work_us_ = 0;  // loop thread only
  absl::Mutex mutex_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<int64_t, TimerId>, Task> timers_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<TimerId, int64_t> timer_due_us_ ABSL_GUARDED_BY(mutex_);
  TimerId next_timer_ ABSL_GUARDED_BY(mutex_) = 1;
  bool sleeping_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace longhaul
