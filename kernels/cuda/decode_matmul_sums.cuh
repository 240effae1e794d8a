// A warpgroup's sums of the decode products, and their exchange between workers that share a tile.
#pragma once

#include "kernels/cuda/decode_matmul_shape.cuh"

namespace longhaul::decode_matmul {

// A thread's part of a warpgroup's sums [64 rows of W, kColumns rows of x], in wgmma's own
// distribution: vector v holds two rows of W, 8 apart, by columns 8v and 8v + 1 from the thread's
// first.
template <int kColumns>
struct Sums {
  static constexpr int kVectors = kColumns / 8;
  static constexpr int kBlockFloats = Shape<kColumns>::kBlockColumns / 2;
  float value[Shape<kColumns>::kBlocks][kBlockFloats];
  __device__ __forceinline__ float4 vector(int v) const {
    const float* at = &value[v * 4 / kBlockFloats][v * 4 % kBlockFloats];
    return make_float4(at[0], at[1], at[2], at[3]);
  }
  __device__ __forceinline__ void Set(int v, float4 values) {
    float* at = &value[v * 4 / kBlockFloats][v * 4 % kBlockFloats];
    at[0] = values.x;
    at[1] = values.y;
    at[2] = values.z;
    at[3] = values.w;
  }
};

__device__ __forceinline__ float4 Add(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// The part of partials that a worker's warpgroup leaves the sums of a shared tile in: a worker has
// at most two such tiles, its first and its last.
template <int kColumns>
__device__ __forceinline__ float4* PartialOf(const Work& work, const Cut& cut, uint32_t worker,
                                             uint32_t tile, uint32_t quarter) {
  const bool is_first = cut.FirstUnit(worker) / cut.tile_units == tile;
  const uint32_t slot = (worker * Cut::kQuarters + quarter) * 2 + (is_first ? 0 : 1);
  return reinterpret_cast<float4*>(work.partials +
                                   uint64_t{slot} * Shape<kColumns>::kPartialFloats);
}

// Leaves this worker's part of a shared tile for the last of its sharers to come, which has then
// all parts added in the order of their columns: whether this is the one. Nobody waits for anybody.
template <int kColumns>
__device__ __forceinline__ bool Exchange(const Work& work, const Cut& cut, uint32_t worker,
                                         uint32_t tile, uint32_t quarter, uint32_t* arrived_last,
                                         Sums<kColumns>& sums) {
  const int thread = threadIdx.x % ptx::kWarpgroup;
  const int barrier = 1 + threadIdx.x / ptx::kWarpgroup;
  const uint32_t first_sharer = cut.WorkerOf(tile * cut.tile_units);
  const uint32_t sharers = cut.WorkerOf((tile + 1) * cut.tile_units - 1) - first_sharer + 1;

  float4* mine = PartialOf<kColumns>(work, cut, worker, tile, quarter) + thread;
#pragma unroll
  for (int v = 0; v < Sums<kColumns>::kVectors; ++v) {
    if (8 * v < work.rows) __stcg(mine + v * ptx::kWarpgroup, sums.vector(v));
  }
  ptx::NamedSync(barrier, ptx::kWarpgroup);
  if (thread == 0) {
    uint32_t* arrivals = work.arrivals + tile * Cut::kQuarters + quarter;
    const bool is_last = ptx::AddAcquireRelease(arrivals, 1) + 1 == sharers;
    if (is_last) *arrivals = 0;
    *arrived_last = is_last ? 1 : 0;
  }
  ptx::NamedSync(barrier, ptx::kWarpgroup);
  if (*arrived_last == 0) return false;

  // Several sharers' vectors are loaded at once, so that little of the time is waiting.
  constexpr int kVectorsAtOnce =
      std::min(Sums<kColumns>::kVectors, kColumns == 64 || kColumns == 128 ? 8 : 4);
  constexpr int kSharersAtOnce = kColumns <= 16 ? 6 : kColumns == 32 ? 3 : 2;
#pragma unroll
  for (int v = 0; v < Sums<kColumns>::kVectors; v += kVectorsAtOnce) {
    if (8 * v >= work.rows) continue;
    float4 total[kVectorsAtOnce] = {};
#pragma unroll 1
    for (uint32_t sharer = 0; sharer < sharers; sharer += kSharersAtOnce) {
      float4 part[kSharersAtOnce][kVectorsAtOnce];
#pragma unroll
      for (int s = 0; s < kSharersAtOnce; ++s) {
        const uint32_t from_sharer = first_sharer + min(sharer + s, sharers - 1);
        const float4* from = PartialOf<kColumns>(work, cut, from_sharer, tile, quarter) +
                             v * ptx::kWarpgroup + thread;
#pragma unroll
        for (int i = 0; i < kVectorsAtOnce; ++i) part[s][i] = __ldcg(from + i * ptx::kWarpgroup);
      }
#pragma unroll
      for (int s = 0; s < kSharersAtOnce; ++s) {
        if (sharer + s < sharers) {
#pragma unroll
          for (int i = 0; i < kVectorsAtOnce; ++i) total[i] = Add(total[i], part[s][i]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kVectorsAtOnce; ++i) sums.Set(v + i, total[i]);
  }
  return true;
}

}  // namespace longhaul::decode_matmul
