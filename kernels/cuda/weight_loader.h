// Takes a model's weights from its file to the device as bf16: several threads convert (or copy)
// into pinned memory, piece after piece, while earlier pieces are on their way. Device thread; load
// time only.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/model/weights.h"
#include "common/runtime/thread_pool.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/elementwise.h"

namespace longhaul {

class WeightLoader {
 public:
  WeightLoader(CudaDevice& device, int threads) : device_(device), pool_(threads) {}

  // Queues to [rows, cols] on the device = the parts' values, rounded to bf16 if they are not. The
  // parts have cols in common; their rows come in turns, `turn_rows` of each, and all at once where
  // a part has no more. Error: ResourceExhausted when there is no pinned memory.
  absl::Status Load(absl::Span<const WeightView> parts, int64_t turn_rows, Bf16* to);

 private:
  struct Piece {
    CudaPinnedBuffer memory;
    DeviceEvent copied = 0;
  };

  CudaDevice& device_;
  ThreadPool pool_;
  std::array<Piece, 4> ring_;
  uint64_t pieces_ = 0;
};

}  // namespace longhaul
