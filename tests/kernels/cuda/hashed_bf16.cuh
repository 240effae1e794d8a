// Random bf16 values that host and device both know without copying them: element i of the array
// `seed` is a hash of both, uniform in [-1, 1).
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace longhaul {

__host__ __device__ inline float HashedValue(uint64_t seed, uint64_t i) {
  uint64_t h = (i + 1) * 0x9E3779B97F4A7C15ull ^ seed * 0xD1B54A32D192ED03ull;
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9ull;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBull;
  return static_cast<float>(static_cast<int32_t>(h >> 40) - (1 << 23)) / (1 << 23);
}

__global__ void FillHashed(__nv_bfloat16* to, uint64_t count, uint64_t seed) {
  for (uint64_t i = blockIdx.x * uint64_t{blockDim.x} + threadIdx.x; i < count;
       i += uint64_t{gridDim.x} * blockDim.x) {
    to[i] = __float2bfloat16_rn(HashedValue(seed, i));
  }
}

}  // namespace longhaul
