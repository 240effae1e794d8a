// What the multiplying warps of the decode products wait for: weights, x, and the rows' root mean
// squares.
#pragma once

#include "kernels/cuda/decode_matmul_shape.cuh"

namespace longhaul::decode_matmul {

// Walks over a run's units: which rows and columns of the weight are next.
struct Walk {
  uint32_t tile;
  uint32_t unit;  // of the tile

  __device__ __forceinline__ Walk(const Cut& cut, uint32_t first)
      : tile(first / cut.tile_units), unit(first % cut.tile_units) {}
  __device__ __forceinline__ void Next(const Cut& cut) {
    if (++unit == cut.tile_units) {
      unit = 0;
      ++tile;
    }
  }
  __device__ __forceinline__ int column() const { return unit * Cut::kUnitColumns; }
};

// One thread. Waits for nothing but room, and for copies to land.
template <int kColumns>
__device__ __forceinline__ void FeedWeights(const Work& work, uint32_t worker, uint32_t half,
                                            SharedMemory<kColumns>& shared) {
  ptx::LetLaterKernelsStart();
  ptx::Ring<Shape<kColumns>::kWeightStages> ring;
  ptx::Ring<Shape<kColumns>::kWeightStages> landing;
  int under_way = 0;
  for (int i = 0; i < work.count; ++i) {
    const Product& product = work.products[i];
    const Cut cut = product.cut;
    const Run run(cut, worker);
    Walk walk(cut, run.first);
    ptx::PrefetchTensorMap(&product.weight);
    for (uint32_t unit = run.first; unit < run.end; ++unit, walk.Next(cut), ring.Next()) {
      if (under_way == kUnderWay) {
        ptx::BarrierWait(&shared.weight_full[landing.stage], landing.parity);
        landing.Next();
      } else {
        ++under_way;
      }
      ptx::BarrierWait(&shared.weight_empty[ring.stage], ring.parity ^ 1);
      uint64_t* full = &shared.weight_full[ring.stage];
      ptx::BarrierArriveExpect(full, kWeightBytes);
      ptx::TmaLoad2d(shared.weights[ring.stage], &product.weight, full, walk.column(),
                     walk.tile * Cut::kTileRows + half * Cut::kHalfRows, ptx::kEvictFirst);
    }
  }
}

// One thread.
template <int kColumns>
__device__ __forceinline__ void FeedX(const Work& work, uint32_t worker,
                                      SharedMemory<kColumns>& shared) {
  using S = Shape<kColumns>;
  ptx::Ring<S::kXStages> ring;
  for (int i = 0; i < work.count; ++i) ptx::PrefetchTensorMap(&work.products[i].x);
  ptx::WaitForEarlierKernels();
  for (int i = 0; i < work.count; ++i) {
    const Product& product = work.products[i];
    if (i > 0) {
      WaitForProduct(work, i - 1);
      ptx::FenceAsyncProxyGlobal();
    }
    const Cut cut = product.cut;
    const Run run(cut, worker);
    Walk walk(cut, run.first);
    for (uint32_t unit = run.first; unit < run.end; ++unit, walk.Next(cut), ring.Next()) {
      ptx::BarrierWait(&shared.x_empty[ring.stage], ring.parity ^ 1);
      uint64_t* full = &shared.x_full[ring.stage];
      ptx::BarrierArriveExpect(full, S::kXBytes);
#pragma unroll
      for (int block = 0; block < S::kBlocks; ++block) {
        ptx::TmaLoad2d(shared.x[ring.stage] + block * S::kBlockBytes, &product.x, full,
                       walk.column(), block * S::kBlockColumns, ptx::kEvictLast);
      }
    }
  }
  EndWaiting(work);
}

// One warp. inverse_rms may be overwritten as soon as the product before is finished: that which
// was divided by it is earlier still.
template <int kColumns>
__device__ __forceinline__ void Divide(const Work& work, SharedMemory<kColumns>& shared) {
  // Lanes that add up a row. So many rows are under way at once that few round trips are needed.
  constexpr int kLanes = 8;
  constexpr int kRows = ptx::kWarp / kLanes;
  constexpr int kBatches = std::max(1, std::min(kColumns / kRows, 8));
  const int lane = threadIdx.x % kLanes;
  const int lane_row = threadIdx.x % ptx::kWarp / kLanes;
  for (int i = 1; i < work.count; ++i) {
    const Product& product = work.products[i];
    const int quads = product.square_groups / 4;
    if (quads == 0) continue;
    WaitForProduct(work, i - 1);
    const float width = static_cast<float>(work.products[i - 1].n);
    const float4* squares = reinterpret_cast<const float4*>(work.squares);
    for (int first = lane_row; first < work.rows + lane_row; first += kRows * kBatches) {
      float sums[kBatches] = {};
#pragma unroll 2
      for (int quad = lane; quad < quads; quad += kLanes) {
        float4 four[kBatches];
#pragma unroll
        for (int b = 0; b < kBatches; ++b) {
          const int row = min(first + b * kRows, work.rows - 1);
          four[b] = __ldcg(squares + row * quads + quad);
        }
#pragma unroll
        for (int b = 0; b < kBatches; ++b) {
          sums[b] += (four[b].x + four[b].y) + (four[b].z + four[b].w);
        }
      }
#pragma unroll
      for (int b = 0; b < kBatches; ++b) {
#pragma unroll
        for (int step = kLanes / 2; step > 0; step /= 2) {
          sums[b] += __shfl_xor_sync(0xffffffffu, sums[b], step);
        }
        const int row = first + b * kRows;
        if (lane == 0 && row < work.rows) {
          shared.inverse_rms[row] = rsqrtf(sums[b] / width + product.epsilon);
        }
      }
    }
    __syncwarp();
    if (threadIdx.x % ptx::kWarp == 0) ptx::BarrierArrive(&shared.divided);
  }
  if (threadIdx.x % ptx::kWarp == 0) EndWaiting(work);
}

}  // namespace longhaul::decode_matmul
