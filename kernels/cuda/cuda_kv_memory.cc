#include "kernels/cuda/cuda_kv_memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/status.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/slab_digest.h"

namespace longhaul {
namespace {

constexpr int64_t kSlabsAtOnce = 16384;

}  // namespace

absl::StatusOr<std::unique_ptr<CudaKvMemory>> CudaKvMemory::Make(const CudaDevice& device) {
  LH_ASSIGN_OR_RETURN(CudaPinnedBuffer shared,
                      CudaPinnedBuffer::Allocate(2 * kSlabsAtOnce * sizeof(uint64_t)));
  return std::unique_ptr<CudaKvMemory>(new CudaKvMemory(device, std::move(shared)));
}

CudaKvMemory::CudaKvMemory(const CudaDevice& device, CudaPinnedBuffer shared)
    : device_(device), shared_(std::move(shared)) {
  CudaCheck(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}

CudaKvMemory::~CudaKvMemory() {
  device_.Bind();
  CudaCheck(cudaStreamDestroy(stream_), "cudaStreamDestroy");
}

void CudaKvMemory::Copy(absl::Span<const Run> runs) {
  device_.Bind();
  for (const Run& run : runs) {
    CudaCheck(cudaMemcpyAsync(run.to, run.from, run.bytes, cudaMemcpyDefault, stream_),
              "cudaMemcpyAsync");
  }
  CudaCheck(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

std::vector<uint64_t> CudaKvMemory::Digests(absl::Span<const std::byte* const> slabs,
                                            int64_t slab_bytes) {
  device_.Bind();
  std::vector<uint64_t> digests;
  digests.reserve(slabs.size());
  auto* const asked = reinterpret_cast<const std::byte**>(shared_.data());
  auto* const answers = reinterpret_cast<uint64_t*>(shared_.data()) + kSlabsAtOnce;
  for (size_t done = 0; done < slabs.size();) {
    const size_t count = std::min<size_t>(kSlabsAtOnce, slabs.size() - done);
    std::copy_n(slabs.begin() + done, count, asked);
    LaunchSlabDigests(asked, static_cast<int>(count), slab_bytes, answers, stream_);
    CudaCheck(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    digests.insert(digests.end(), answers, answers + count);
    done += count;
  }
  return digests;
}

}  // namespace longhaul
