// The host memory that a CPU backend gives out: whole pages, counted against a limit. Device thread
// only; the buffers must not outlive it.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/model/device.h"

namespace longhaul {

class CpuMemory {
 public:
  // `bytes_max`: what may be given out in all; 0: what the machine has free.
  explicit CpuMemory(int64_t bytes_max) : bytes_max_(bytes_max) {}

  int64_t free_bytes() const;

  // Zeroed, page-aligned. Error: ResourceExhausted with the bytes asked for and left.
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes);

 private:
  const int64_t bytes_max_;
  int64_t allocated_bytes_ = 0;
};

}  // namespace longhaul
