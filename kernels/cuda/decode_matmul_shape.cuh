// What the parts of the decode products' kernel (decode_matmul.cu) share: its shape, its shared
// memory, its parameters.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/decode_matmul.h"
#include "kernels/cuda/ptx.cuh"

namespace longhaul::decode_matmul {

using Cut = DecodeMatmulCut;

// The matrix unit's first operand is W and its second x, [64 rows of W, 16] x [rows of x, 16]^T, so
// that one row of x costs a width of 8, not 64. Two warpgroups multiply, each 64 rows of W; one
// thread feeds the ring of weights, one the ring of x, and a warp divides.
constexpr int kConsumerWarps = 8;
constexpr int kWarpgroups = kConsumerWarps * ptx::kWarp / ptx::kWarpgroup;
constexpr int kWarpgroupRows = 64;
constexpr int kWeightFeeder = kConsumerWarps;  // warps
constexpr int kXFeeder = kWeightFeeder + 1;
constexpr int kDivider = kXFeeder + 1;
constexpr int kThreads = (kDivider + 1) * ptx::kWarp;
constexpr int kWeightBytes = Cut::kHalfRows * ptx::kSwizzleRowBytes;
constexpr int kProductColumnsMax = 128;  // of one wgmma; wider x is multiplied in blocks
constexpr int kColumnsMin = 8;
constexpr int kRowsMax = 256;  // of one launch
constexpr int kSharedBytesMax = 227 * 1024;
// Copies of weights that a block has under way: as many as memory's latency asks for. More would
// only wait, and with them what is read and written between two products.
constexpr int kUnderWay = 4;

// How x of up to kColumns rows is multiplied.
template <int kColumns>
struct Shape {
  static constexpr int kBlockColumns = std::min(kColumns, kProductColumnsMax);
  static constexpr int kBlocks = kColumns / kBlockColumns;
  static constexpr int kBlockBytes = kBlockColumns * ptx::kSwizzleRowBytes;
  static constexpr int kXBytes = kBlocks * kBlockBytes;
  // x comes from the cache: wide ones need no more stages than hide its latency.
  static constexpr int kXStages = kColumns == 8     ? 13
                                  : kColumns == 16  ? 12
                                  : kColumns == 32  ? 11
                                  : kColumns == 64  ? 7
                                  : kColumns == 128 ? 4
                                                    : 3;
  static constexpr int kOtherBytes = 2048 + kColumns * 36;
  static constexpr int kWeightStages =
      (kSharedBytesMax - kXStages * kXBytes - kOtherBytes) / kWeightBytes;
  static_assert(kUnderWay <= kWeightStages);
  static constexpr int kPartialFloats = kWarpgroupRows * kColumns;  // of one warpgroup
};

template <int kColumns>
struct SharedMemory {
  using S = Shape<kColumns>;
  alignas(ptx::kSwizzleAtomBytes) std::byte weights[S::kWeightStages][kWeightBytes];
  alignas(ptx::kSwizzleAtomBytes) std::byte x[S::kXStages][S::kXBytes];
  alignas(16) float inverse_rms[kColumns];
  // Sums of squares over 16 rows of W, then of a warpgroup's 64.
  float squares[kWarpgroups][ptx::kWarpgroup / ptx::kWarp][kColumns];
  uint32_t arrived_last[kWarpgroups];
  uint64_t weight_full[S::kWeightStages];
  uint64_t weight_empty[S::kWeightStages];
  uint64_t x_full[S::kXStages];
  uint64_t x_empty[S::kXStages];
  uint64_t divided;  // inverse_rms is there
};

// One product, as the kernel wants it.
struct Product {
  CUtensorMap weight;
  CUtensorMap x;
  Cut cut;
  int n;
  const float* bias;
  void* out;
  const float* norm_weight;
  __nv_bfloat16* normed;
  float epsilon;
  int square_groups;  // of 64 columns, in a row of x; 0: nothing to divide by
  DecodeOutput output;
};

// Counters lie in lines of their own.
constexpr int kCounterStride = 32;

struct Work {
  Product products[kDecodeMatmulsMax];
  int count;
  int rows;
  float* partials;
  float* squares;      // [rows][groups of 64 columns]
  uint32_t* finished;  // by product: quarters of its tiles that are stored
  uint32_t* waiters;   // roles that have waited for the last time
  uint32_t* arrivals;  // by quarter of a tile: sharers whose sums are there
};

// The units of a product that a worker multiplies.
struct Run {
  uint32_t first;
  uint32_t end;

  __device__ __forceinline__ Run(const Cut& cut, uint32_t worker)
      : first(cut.FirstUnit(min(worker, cut.workers))),
        end(cut.FirstUnit(min(worker + 1, cut.workers))) {}
};

// Waits until all of a product is stored. What is read afterwards through the copy engine needs
// ptx::FenceAsyncProxyGlobal in between.
__device__ __forceinline__ void WaitForProduct(const Work& work, int product) {
  const uint32_t quarters = work.products[product].cut.tiles * Cut::kQuarters;
  while (ptx::LoadAcquire(work.finished + product * kCounterStride) < quarters) {
  }
}

// Of each block two roles wait, the feeder of x and the divider. Says that one of them waits no
// more: the last one leaves the counters as they were found.
__device__ __forceinline__ void EndWaiting(const Work& work) {
  if (work.count == 1) return;
  if (ptx::AddAcquireRelease(work.waiters, 1) + 1 != 2 * gridDim.x) return;
  for (int product = 0; product + 1 < work.count; ++product) {
    work.finished[product * kCounterStride] = 0;
  }
  *work.waiters = 0;
}

}  // namespace longhaul::decode_matmul
