#include <cuda_bf16.h>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/random_operands.h"

namespace longhaul {
namespace {

constexpr int kBlocks = 1024;
constexpr int kThreads = 256;

// The finaliser of MurmurHash3: neighbouring numbers share nothing.
__device__ uint32_t Mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x85ebca6bu;
  x ^= x >> 13;
  x *= 0xc2b2ae35u;
  return x ^ x >> 16;
}

__global__ void RandomBf16(__nv_bfloat16* to, int64_t count) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    to[i] = __float2bfloat16(static_cast<float>(static_cast<int32_t>(Mixed(i))) * 0x1p-31f);
  }
}

__global__ void CountDifferent(const uint32_t* a, const uint32_t* b, int64_t count,
                               uint32_t* different) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  uint32_t here = 0;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    here += a[i] != b[i];
  }
  if (here != 0) atomicAdd(different, here);
}

}  // namespace

void LaunchRandomBf16(void* to, int64_t count, cudaStream_t stream) {
  RandomBf16<<<kBlocks, kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(to), count);
  CudaCheckLaunch("RandomBf16");
}

void LaunchCountDifferent(const uint32_t* a, const uint32_t* b, int64_t count, uint32_t* different,
                          cudaStream_t stream) {
  CudaCheck(cudaMemsetAsync(different, 0, sizeof(*different), stream), "cudaMemsetAsync");
  CountDifferent<<<kBlocks, kThreads, 0, stream>>>(a, b, count, different);
  CudaCheckLaunch("CountDifferent");
}

}  // namespace longhaul
