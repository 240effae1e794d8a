// The gated feed-forward's first product of prefill rows, with its activation: out [rows, n / 2] =
// silu(x Wgate^T) * (x Wup^T), rounded once; bf16 operands, float32 sums. W [n, k] has gate and up
// in turns of kGatedRows. Tiles of 128 rows and up to 256 of W's rows; each sum runs over k in one
// order, 16 terms a step, whatever the tile, so a row's bits depend on nothing around it. Device
// thread.
//
// A persistent kernel for Hopper: one warp fetches with the tensor copy engine, two warpgroups
// multiply (wgmma). NVIDIA, "CUTLASS", 3.x, has this design ("warp-specialized cooperative").
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

#include "kernels/cuda/elementwise.h"

namespace longhaul {

// All pointers are device memory, 16-byte aligned.
struct GatedMatmulCall {
  const Bf16* weight = nullptr;  // [n, k]
  int64_t n = 0;                 // a multiple of 16
  int64_t k = 0;                 // a multiple of 8
  const Bf16* x = nullptr;       // [rows, k]
  int64_t rows = 0;
  Bf16* out = nullptr;  // [rows, n / 2]
  int multiprocessors = 0;
};

// What the blocks of a launch work on: tiles of so many of W's rows; two blocks of a cluster have
// neighbouring rows of x and fetch W once.
struct GatedTiling {
  int columns = 0;
  int cluster = 0;
  bool operator==(const GatedTiling&) const = default;
};
// The last one is for what fits one tile's rows.
inline constexpr std::array<GatedTiling, 4> kGatedTilings = {
    {{256, 2}, {224, 2}, {128, 2}, {128, 1}}};

// The tiling that is expected to be the fastest.
GatedTiling ChooseGatedTiling(int64_t rows, int64_t n, int multiprocessors);

// Queues the product.
void LaunchGatedMatmul(const GatedMatmulCall& call, const GatedTiling& tiling, cudaStream_t stream);

}  // namespace longhaul
