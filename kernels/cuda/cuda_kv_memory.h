// A CUDA device's memory as the transfer thread sees it: a stream of its own beside the model's.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/model/kv_memory.h"
#include "kernels/cuda/cuda_device.h"

namespace longhaul {

class CudaKvMemory final : public KvMemory {
 public:
  // `device` outlives it.
  static absl::StatusOr<std::unique_ptr<CudaKvMemory>> Make(const CudaDevice& device);
  ~CudaKvMemory() override;

  MemoryKind kind() const override { return MemoryKind::kCuda; }
  void BindThread() override;
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override;
  void Copy(absl::Span<const Run> runs) override;
  // slab_bytes: a multiple of 64, more than 240, as every slab of the kernels' shapes is.
  std::unique_ptr<SlabDigests> Digests(absl::Span<const std::byte* const> slabs,
                                       int64_t slab_bytes) override;

 private:
  class Buffer;
  class Batch;

  CudaKvMemory(const CudaDevice& device, CudaPinnedBuffer runs);
  CudaPinnedBuffer TakeTable(int64_t bytes);
  // Whether the device's kernels reach what lies at `address`.
  bool Reaches(const void* address);

  const CudaDevice& device_;
  cudaStream_t stream_ = nullptr;
  absl::flat_hash_map<int, bool> reached_;  // other devices that were met, by CUDA's number
  CudaPinnedBuffer runs_;                   // of the copy under way: the device reads them
  // Of digests that are over.
  std::vector<CudaPinnedBuffer> free_tables_;
};

}  // namespace longhaul
