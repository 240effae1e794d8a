#include "kernels/cuda/cuda_kv_memory.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/run_copy.h"
#include "kernels/cuda/slab_digest.h"

namespace longhaul {
namespace {

// Tables of digests hold at least so many slabs, so that most batches find one that fits.
constexpr int64_t kTableSlabsMin = 4096;

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

// The digests of one call; its table goes back when it is over: [flag][slabs][digests].
class CudaKvMemory::Batch final : public SlabDigests {
 public:
  Batch(CudaKvMemory& memory, absl::Span<const std::byte* const> slabs, int64_t slab_bytes)
      : memory_(memory),
        count_(slabs.size()),
        table_(memory.TakeTable(static_cast<int64_t>((1 + 2 * count_) * sizeof(uint64_t)))) {
    std::copy(slabs.begin(), slabs.end(), asked());
    over() = 0;
    LaunchSlabDigests(asked(), static_cast<int>(count_), slab_bytes, answers(), memory.stream_);
    LaunchSetFlag(&over(), memory.stream_);
  }
  ~Batch() override {
    Wait();
    memory_.free_tables_.push_back(std::move(table_));
  }
  bool Ready() override {
    return std::atomic_ref<uint32_t>(over()).load(std::memory_order_acquire) != 0;
  }
  std::vector<uint64_t> Take() override {
    Wait();
    return {answers(), answers() + count_};
  }

 private:
  uint32_t& over() const { return *reinterpret_cast<uint32_t*>(table_.data()); }
  const std::byte** asked() const {
    return reinterpret_cast<const std::byte**>(table_.data() + sizeof(uint64_t));
  }
  uint64_t* answers() const { return reinterpret_cast<uint64_t*>(asked()) + count_; }
  void Wait() {
    if (Ready()) return;
    memory_.device_.Bind();
    CudaCheck(cudaStreamSynchronize(memory_.stream_), "cudaStreamSynchronize");
  }

  CudaKvMemory& memory_;
  const size_t count_;
  CudaPinnedBuffer table_;
};

absl::StatusOr<std::unique_ptr<CudaKvMemory>> CudaKvMemory::Make(const CudaDevice& device) {
  LH_ASSIGN_OR_RETURN(CudaPinnedBuffer runs,
                      CudaPinnedBuffer::Allocate(kRunCopyRunsMax * sizeof(Run)));
  return std::unique_ptr<CudaKvMemory>(new CudaKvMemory(device, std::move(runs)));
}

CudaKvMemory::CudaKvMemory(const CudaDevice& device, CudaPinnedBuffer runs)
    : device_(device), runs_(std::move(runs)) {
  // Before the model's kernels wherever a processor comes free: these are short.
  int lowest = 0;
  int highest = 0;
  CudaCheck(cudaDeviceGetStreamPriorityRange(&lowest, &highest),
            "cudaDeviceGetStreamPriorityRange");
  CudaCheck(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest),
            "cudaStreamCreate");
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

bool CudaKvMemory::Reaches(const void* address) {
  cudaPointerAttributes attributes;
  CudaCheck(cudaPointerGetAttributes(&attributes, address), "cudaPointerGetAttributes");
  if (attributes.type != cudaMemoryTypeDevice) return false;
  if (attributes.device == device_.number()) return true;
  const auto [entry, is_new] = reached_.try_emplace(attributes.device, false);
  if (is_new) entry->second = device_.ReachMemoryOf(attributes.device).ok();
  return entry->second;
}

void CudaKvMemory::Copy(absl::Span<const Run> runs) {
  device_.Bind();
  if (runs.empty()) return;
  const bool reaches = Reaches(runs[0].to) && Reaches(runs[0].from);
  // What the host has is not pinned, a device out of reach is the driver's to find a way to, and
  // one run is its best case.
  if (runs.size() == 1 || !reaches) {
    for (const Run& run : runs) {
      CudaCheck(cudaMemcpyAsync(run.to, run.from, run.bytes, cudaMemcpyDefault, stream_),
                "cudaMemcpyAsync");
    }
    CudaCheck(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    return;
  }
  while (!runs.empty()) {
    const auto now = runs.first(std::min<size_t>(runs.size(), kRunCopyRunsMax));
    int64_t bytes_max = 0;
    for (const Run& run : now) bytes_max = std::max(bytes_max, run.bytes);
    auto* const table = reinterpret_cast<Run*>(runs_.data());
    std::copy(now.begin(), now.end(), table);
    LaunchRunCopy(table, static_cast<int>(now.size()), bytes_max, stream_);
    CudaCheck(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    runs.remove_prefix(now.size());
  }
}

CudaPinnedBuffer CudaKvMemory::TakeTable(int64_t bytes) {
  device_.Bind();
  if (!free_tables_.empty()) {
    CudaPinnedBuffer table = std::move(free_tables_.back());
    free_tables_.pop_back();
    if (table.bytes() >= bytes) return table;
  }
  absl::StatusOr<CudaPinnedBuffer> table = CudaPinnedBuffer::Allocate(
      std::max(bytes, static_cast<int64_t>((1 + 2 * kTableSlabsMin) * sizeof(uint64_t))));
  LH_CHECK(table.ok(), table.status().ToString());
  return *std::move(table);
}

std::unique_ptr<SlabDigests> CudaKvMemory::Digests(absl::Span<const std::byte* const> slabs,
                                                   int64_t slab_bytes) {
  device_.Bind();
  return std::make_unique<Batch>(*this, slabs, slab_bytes);
}

}  // namespace longhaul
