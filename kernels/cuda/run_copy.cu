#include <algorithm>
#include <cstdint>

#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/run_copy.h"

namespace longhaul {
namespace {

constexpr int kThreads = 256;
constexpr int kAhead = 8;  // 16-byte words of a thread that are loaded before the first is stored
constexpr int64_t kSliceBytes = int64_t{kThreads} * kAhead * sizeof(uint4);  // of a thread block

// A thread block a slice: x counts slices of a run, y runs.
__global__ void __launch_bounds__(kThreads) CopyRuns(const KvMemory::Run* runs) {
  const KvMemory::Run run = runs[blockIdx.y];
  const int64_t begin = blockIdx.x * kSliceBytes;
  if (begin >= run.bytes) return;
  const int64_t bytes = min(kSliceBytes, run.bytes - begin);
  std::byte* const to = run.to + begin;
  const std::byte* const from = run.from + begin;
  const auto bits = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from);
  if (((bits | static_cast<uintptr_t>(bytes)) % sizeof(uint4)) != 0) {
    for (int64_t i = threadIdx.x; i < bytes; i += kThreads) to[i] = from[i];
    return;
  }
  const auto* const source = reinterpret_cast<const uint4*>(from);
  auto* const target = reinterpret_cast<uint4*>(to);
  const auto words = static_cast<int>(bytes / sizeof(uint4));
  uint4 values[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int word = i * kThreads + threadIdx.x;
    if (word < words) values[i] = __ldcs(source + word);
  }
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int word = i * kThreads + threadIdx.x;
    if (word < words) __stcs(target + word, values[i]);
  }
}

}  // namespace

void LaunchRunCopy(const KvMemory::Run* runs, int count, int64_t bytes_max, cudaStream_t stream) {
  LH_CHECK(count <= kRunCopyRunsMax, "more runs than a launch takes");
  const int64_t slices = (bytes_max + kSliceBytes - 1) / kSliceBytes;
  if (count == 0 || slices == 0) return;
  CopyRuns<<<dim3(static_cast<unsigned>(slices), static_cast<unsigned>(count)), kThreads, 0,
             stream>>>(runs);
  CudaCheckLaunch("CopyRuns");
}

}  // namespace longhaul
