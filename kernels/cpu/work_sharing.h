// Shares numbered tasks out over a pool: whoever is free takes the next. Which thread runs a task
// must not matter to its result.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "common/runtime/thread_pool.h"

namespace longhaul {

// Calls body(task, worker) for each task in [0, tasks), worker in [0, pool.threads()).
inline void ShareOut(ThreadPool& pool, int64_t tasks,
                     absl::FunctionRef<void(int64_t task, int worker)> body) {
  if (tasks <= 1 || pool.threads() == 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  pool.RunOnAll([&](int worker) {
    for (int64_t task = next.fetch_add(1, std::memory_order_relaxed); task < tasks;
         task = next.fetch_add(1, std::memory_order_relaxed)) {
      body(task, worker);
    }
  });
}

}  // namespace longhaul
