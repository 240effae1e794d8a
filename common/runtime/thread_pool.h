// ThreadPool: fork-join parallel loops for CPU kernels. The calling thread is worker 0, so a pool
// of one runs inline.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace longhaul {

class ThreadPool {
 public:
  // `threads` >= 1 workers in all. `cores`: worker i is pinned to cores[i % size]; empty leaves
  // placement to the kernel. Worker 0 is the caller and is pinned by its own loop, not here.
  explicit ThreadPool(int threads, std::vector<int> cores = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(worker) once for each worker in [0, threads()), in parallel, and returns when all
  // have returned. One caller at a time; not reentrant.
  void RunOnAll(absl::FunctionRef<void(int)> body);

 private:
  void Work(int worker);

  std::atomic<uint64_t> generation_{0};
  std::atomic<int> running_{0};
  std::atomic<bool> stopping_{false};
  const absl::FunctionRef<void(int)>* body_ = nullptr;  // published by generation_
  std::vector<std::thread> workers_;
};

}  // namespace longhaul
