// What trying out algorithms needs: random operands, and a comparison of results bit by bit. All
// pointers are device memory. Device thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace longhaul {

// to [count] bf16, uniform in [-1, 1); always the same ones.
void LaunchRandomBf16(void* to, int64_t count, cudaStream_t stream);

// *different = how many of the `count` words differ.
void LaunchCountDifferent(const uint32_t* a, const uint32_t* b, int64_t count, uint32_t* different,
                          cudaStream_t stream);

}  // namespace longhaul
