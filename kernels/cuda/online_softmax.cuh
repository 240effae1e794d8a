// The online softmax of a warpgroup's 64 rows, in the registers of the matrix unit's accumulators
// (see wgmma.cuh for who holds what). Scores come in tiles of 128 keys; a thread holds two rows, 8
// apart, and shares each with its quad. Milakov & Gimelshein, "Online normalizer calculation for
// softmax", 2018.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/ptx.cuh"

namespace longhaul {

// Hides the keys that come after the two rows of this thread: those behind column `last` (+ 8 for
// the second row).
__device__ __forceinline__ void MaskScores(float (&scores)[64], int last, int lane) {
  constexpr float kHidden = -INFINITY;
#pragma unroll
  for (int j = 0; j < 16; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int column = 8 * j + 2 * (lane % 4) + e;
      if (column > last) scores[4 * j + e] = kHidden;
      if (column > last + 8) scores[4 * j + 2 + e] = kHidden;
    }
  }
}

__device__ __forceinline__ float QuadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ __forceinline__ float QuadSum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// The running softmax of a thread's two rows.
struct Softmax {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0f, 0.0f};  // of this thread's own columns

  // Turns scores into weights relative to the new maximum; returns by what earlier sums shrink.
  __device__ __forceinline__ void Update(float (&scores)[64], float scale_log2,
                                         float (&shrink)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float high = scores[2 * r];
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        high = fmaxf(high, fmaxf(scores[4 * j + 2 * r], scores[4 * j + 2 * r + 1]));
      }
      const float next = fmaxf(max[r], QuadMax(high));
      shrink[r] = ptx::Exp2((max[r] - next) * scale_log2);
      max[r] = next;
      const float offset = next * scale_log2;
      float total = 0.0f;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[4 * j + 2 * r + e];
          score = ptx::Exp2(fmaf(score, scale_log2, -offset));
          total += score;
        }
      }
      sum[r] = sum[r] * shrink[r] + total;
    }
  }
};

__device__ __forceinline__ void PackWeights(uint32_t (&weights)[32], const float (&scores)[64]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) weights[i] = ptx::PackBf16(scores[2 * i], scores[2 * i + 1]);
}

template <int kCount>
__device__ __forceinline__ void Shrink(float (&sums)[kCount], const float (&shrink)[2]) {
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
    sums[4 * j] *= shrink[0];
    sums[4 * j + 1] *= shrink[0];
    sums[4 * j + 2] *= shrink[1];
    sums[4 * j + 3] *= shrink[1];
  }
}

// Stores 16 bytes a thread: the four lanes of a quad trade columns, so that each holds eight
// neighbouring ones.
template <int kCount>
__device__ __forceinline__ void StoreRows(const float (&sums)[kCount], const Softmax& softmax,
                                          __nv_bfloat16* out, int64_t out_width, int row, int rows,
                                          int lane) {
  const int quad = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float total = QuadSum(softmax.sum[r]);
    const float scale = 1.0f / total;
    __nv_bfloat16* to = out + (row + 8 * r) * out_width;
    const bool inside = row + 8 * r < rows;
#pragma unroll
    for (int group = 0; group < kCount / 16; ++group) {
      uint32_t mine[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int i = 4 * (4 * group + j) + 2 * r;
        mine[j] = ptx::PackBf16(sums[i] * scale, sums[i + 1] * scale);
      }
      // Lane q ends with tile q's four pairs: a 4 x 4 transpose in two exchanges.
      const bool odd = quad & 1;
      uint32_t a = __shfl_xor_sync(0xffffffff, odd ? mine[0] : mine[1], 1);
      uint32_t b = __shfl_xor_sync(0xffffffff, odd ? mine[2] : mine[3], 1);
      if (odd) {
        mine[0] = a;
        mine[2] = b;
      } else {
        mine[1] = a;
        mine[3] = b;
      }
      const bool high = quad & 2;
      a = __shfl_xor_sync(0xffffffff, high ? mine[0] : mine[2], 2);
      b = __shfl_xor_sync(0xffffffff, high ? mine[1] : mine[3], 2);
      if (high) {
        mine[0] = a;
        mine[1] = b;
      } else {
        mine[2] = a;
        mine[3] = b;
      }
      if (inside) {
        *reinterpret_cast<uint4*>(to + 8 * (4 * group + quad)) =
            make_uint4(mine[0], mine[1], mine[2], mine[3]);
      }
    }
  }
}

}  // namespace longhaul
