#include "common/runtime/thread_pool.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#include "common/base/check.h"

namespace longhaul {
namespace {

// Workers spin this many pauses (some tens of microseconds) before they sleep: the gaps between the
// kernels of one step are shorter, the gaps between steps are not.
constexpr int kSpins = 2000;

}  // namespace

ThreadPool::ThreadPool(int threads, std::vector<int> cores) {
  LH_CHECK(threads >= 1, "a pool needs at least one thread");
  for (int worker = 1; worker < threads; ++worker) {
    workers_.emplace_back([this, worker] { Work(worker); });
    if (!cores.empty()) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(cores[worker % cores.size()], &set);
      pthread_setaffinity_np(workers_.back().native_handle(), sizeof(set), &set);
    }
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunOnAll(absl::FunctionRef<void(int)> body) {
  if (workers_.empty()) {
    body(0);
    return;
  }
  body_ = &body;
  running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  body(0);
  for (int spin = 0; running_.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < kSpins) {
      _mm_pause();
    } else {
      const int still_running = running_.load(std::memory_order_acquire);
      if (still_running != 0) running_.wait(still_running, std::memory_order_acquire);
    }
  }
}

void ThreadPool::Work(int worker) {
  uint64_t seen = 0;
  while (true) {
    for (int spin = 0; generation_.load(std::memory_order_acquire) == seen; ++spin) {
      if (spin < kSpins) {
        _mm_pause();
      } else {
        generation_.wait(seen, std::memory_order_acquire);
      }
    }
    ++seen;
    if (stopping_.load()) return;
    (*body_)(worker);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

}  // namespace longhaul
