#include "kernels/cuda/cuda_kv_memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/slab_digest.h"

namespace longhaul {
namespace {

constexpr int64_t kSlabsAtOnce = 16384;

}  // namespace

class CudaKvMemory::Buffer final : public DeviceBuffer {
 public:
  Buffer(const CudaDevice& device, std::byte* data, int64_t bytes)
      : device_(device), data_(data), bytes_(bytes) {}
  ~Buffer() override {
    device_.Bind();
    CudaCheck(cudaFree(data_), "cudaFree");
  }
  std::byte* data() const override { return data_; }
  int64_t bytes() const override { return bytes_; }

 private:
  const CudaDevice& device_;
  std::byte* const data_;
  const int64_t bytes_;
};

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

void CudaKvMemory::BindThread() { device_.Bind(); }

absl::StatusOr<std::unique_ptr<DeviceBuffer>> CudaKvMemory::Allocate(int64_t bytes) {
  device_.Bind();
  void* data = nullptr;
  LH_RETURN_IF_ERROR(CudaStatus(
      cudaMalloc(&data, bytes),
      absl::StrCat("GPU memory for a transfer's buffer of ", bytes,
                   " bytes (lower --gpu_memory_share or --kv_bytes of the workers on this GPU)")));
  return std::make_unique<Buffer>(device_, static_cast<std::byte*>(data), bytes);
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
