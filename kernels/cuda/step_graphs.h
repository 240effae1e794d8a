// The recorded steps of a device: each shape's work is queued once as it is, recorded the next time
// and replayed from then on. Device thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/cuda/cuda_device.h"

namespace longhaul {

class StepGraphs {
 public:
  // What a recording depends on beside the device's memory: the shape, and whose step it is.
  using Key = std::tuple<uint64_t, const void*, const void*>;

  explicit StepGraphs(CudaDevice& device) : device_(device) {}
  ~StepGraphs() { Drop(); }
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  // Queues the work that `body` queues on the device's stream, and only there.
  void Run(const Key& key, absl::FunctionRef<void()> body);
  // Called by `body`: what it has queued so far is a graph by itself. The device may begin with it
  // while the rest is still being launched, which takes a microsecond a kernel.
  void Cut();

  int64_t replays() const { return replays_; }

 private:
  using Parts = std::vector<cudaGraphExec_t>;

  void Begin();
  void End();
  void Drop();

  CudaDevice& device_;
  uint64_t frees_ = 0;             // of the device's memory when the recordings were made
  std::map<Key, Parts> recorded_;  // empty: queued once as it is
  Parts* recording_ = nullptr;
  int64_t replays_ = 0;
};

}  // namespace longhaul
