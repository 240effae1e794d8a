#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/gated.cuh"
#include "kernels/cuda/gated_matmul.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma_wide.cuh"

namespace longhaul {
namespace {

constexpr int kConsumers = 2;  // warpgroups of 64 rows each
constexpr int kConsumerWarps = 4 * kConsumers;
constexpr int kThreads = (1 + kConsumers) * ptx::kWarpgroup;
constexpr int kRows = 64 * kConsumers;
constexpr int kDepth = 64;  // terms of a stage: a swizzled row
constexpr int kXBytes = kRows * ptx::kSwizzleRowBytes;
constexpr int kSharedBytesMax = 227 << 10;
// Tiles are taken in bands of so many rows, column after column: what runs side by side then is
// about as high as wide, and reads the least.
constexpr int kBandRows = 2048;
// What a tile takes beside its products, in columns: from measurements.
constexpr int kTileColumns = 16;

template <int kColumns>
struct Shared {
  static constexpr int kWeightBytes = kColumns * ptx::kSwizzleRowBytes;
  static constexpr int kStages =
      (kSharedBytesMax - 2 * ptx::kSwizzleAtomBytes) / (kXBytes + kWeightBytes);
  alignas(1024) std::byte x[kStages][kXBytes];
  alignas(1024) std::byte weight[kStages][kWeightBytes];
  uint64_t full[kStages], empty[kStages];
};

struct Params {
  Bf16* out;
  int64_t out_width;
  int32_t rows;
  int32_t row_tiles;  // of a whole cluster
  int32_t column_tiles;
  int32_t depths;  // stages that k takes
};

struct Tile {
  int32_t row;     // first one of this block's
  int32_t column;  // first one, of the weights' rows
};

template <int kColumns, int kCluster>
__device__ __forceinline__ bool Find(const Params& params, int number, Tile& tile) {
  constexpr int kBandTiles = kBandRows / (kCluster * kRows);
  if (number >= params.row_tiles * params.column_tiles) return false;
  const int band = number / (kBandTiles * params.column_tiles);
  const int within = number - band * kBandTiles * params.column_tiles;
  const int height = min(kBandTiles, params.row_tiles - band * kBandTiles);
  const int row_tile = band * kBandTiles + within % height;
  tile.row = (row_tile * kCluster + static_cast<int>(blockIdx.x) % kCluster) * kRows;
  tile.column = within / height * kColumns;
  return true;
}

// --- the producer
// ---------------------------------------------------------------------------------

// Copies this block's share of a stage's weights, for all of the cluster.
template <int kColumns, int kCluster>
__device__ __forceinline__ void LoadWeight(Shared<kColumns>& shared, uint32_t stage,
                                           const CUtensorMap* weight, const Tile& tile, int depth) {
  constexpr int kShare = kColumns / kCluster;
  const int first = static_cast<int>(blockIdx.x) % kCluster * kShare;
  std::byte* to = shared.weight[stage] + first * ptx::kSwizzleRowBytes;
  if constexpr (kCluster == 1) {
    ptx::TmaLoad2d(to, weight, &shared.full[stage], depth * kDepth, tile.column + first);
  } else {
    ptx::TmaLoad2dMulticast(to, weight, &shared.full[stage], depth * kDepth, tile.column + first,
                            (1 << kCluster) - 1);
  }
}

template <int kColumns, int kCluster>
__device__ __forceinline__ void Produce(Shared<kColumns>& shared, const CUtensorMap* x,
                                        const CUtensorMap* weight, const Params& params) {
  const int clusters = static_cast<int>(gridDim.x) / kCluster;
  ptx::Ring<Shared<kColumns>::kStages> ring;
  Tile tile;
  for (int number = static_cast<int>(blockIdx.x) / kCluster;
       Find<kColumns, kCluster>(params, number, tile); number += clusters) {
    for (int depth = 0; depth < params.depths; ++depth) {
      ptx::BarrierWait(&shared.empty[ring.stage], ring.parity ^ 1);
      ptx::BarrierArriveExpect(&shared.full[ring.stage], kXBytes + Shared<kColumns>::kWeightBytes);
      LoadWeight<kColumns, kCluster>(shared, ring.stage, weight, tile, depth);
      ptx::TmaLoad2d(shared.x[ring.stage], x, &shared.full[ring.stage], depth * kDepth, tile.row);
      ring.Next();
    }
  }
}

// --- the consumers
// --------------------------------------------------------------------------------

template <int kCount>
__device__ __forceinline__ void KeepInPlace(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) ptx::KeepInPlace(values[i]);
}

// Two neighbours of a row's output: of block `block` of eight columns, in the upper or lower of the
// thread's two rows.
template <int kCount>
__device__ __forceinline__ uint32_t Activated(const float (&sums)[kCount], int block, int lower) {
  const float* gate = sums + 8 * block + 2 * lower;
  const float* up = gate + 4;
  return ptx::PackBf16(Gated(gate[0], up[0]), Gated(gate[1], up[1]));
}

// Stores a thread's values: rows `row` and `row + 8`, from column `column` of the output on.
// Neighbouring lanes exchange pairs, so that each has four columns side by side: of an even block
// or of the odd one after it.
template <int kCount>
__device__ __forceinline__ void Store(const float (&sums)[kCount], const Params& params, int row,
                                      int column, int lane) {
  const int odd = lane % 2;
  Bf16* to = params.out + row * params.out_width + column + 8 * odd + 4 * (lane % 4 / 2);
#pragma unroll
  for (int block = 0; block < kCount / 8; block += 2) {
    // The output may end inside of the tile, at a multiple of eight.
    if (column + 8 * block >= params.out_width) break;
    const bool inside = column + 8 * (block + odd) < params.out_width;
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const uint32_t first = Activated(sums, block, lower);
      const uint32_t second = Activated(sums, block + 1, lower);
      const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? first : second, 1);
      if (inside && row + 8 * lower < params.rows) {
        *reinterpret_cast<uint2*>(to + 8 * lower * params.out_width + 8 * block) =
            odd ? make_uint2(other, second) : make_uint2(first, other);
      }
    }
  }
}

template <int kColumns, int kCluster>
__device__ __forceinline__ void Consume(Shared<kColumns>& shared, const Params& params,
                                        int consumer, int thread) {
  const int lane = thread % ptx::kWarp;
  const int warp = thread / ptx::kWarp;
  const int clusters = static_cast<int>(gridDim.x) / kCluster;
  // One arrival a warp, at every block of the cluster: each fills a part of the others' stages.
  const auto release = [&](uint64_t* barrier) {
    __syncwarp();
    if constexpr (kCluster == 1) {
      if (lane == 0) ptx::BarrierArrive(barrier);
    } else {
      if (lane < kCluster) ptx::BarrierArriveAt(barrier, lane);
    }
  };
  ptx::Ring<Shared<kColumns>::kStages> ring;
  Tile tile;
  float sums[kColumns / 2];
  for (int number = static_cast<int>(blockIdx.x) / kCluster;
       Find<kColumns, kCluster>(params, number, tile); number += clusters) {
    uint64_t* last = nullptr;
    for (int depth = 0; depth < params.depths; ++depth) {
      ptx::BarrierWait(&shared.full[ring.stage], ring.parity);
      const uint64_t a =
          ptx::DescriptorKMajor(shared.x[ring.stage] + consumer * 64 * ptx::kSwizzleRowBytes);
      const uint64_t b = ptx::DescriptorKMajor(shared.weight[ring.stage]);
      ptx::WgmmaFence();
      KeepInPlace(sums);
#pragma unroll
      for (int step = 0; step < kDepth / 16; ++step) {
        ptx::WgmmaWide(sums, a + step * ptx::kStepK16, b + step * ptx::kStepK16,
                       depth > 0 || step > 0);
      }
      ptx::WgmmaCommit();
      KeepInPlace(sums);
      ptx::WgmmaWait<1>();
      if (last != nullptr) release(last);
      last = &shared.empty[ring.stage];
      ring.Next();
    }
    ptx::WgmmaWait<0>();
    KeepInPlace(sums);
    release(last);
    Store(sums, params, tile.row + consumer * 64 + warp * 16 + lane / 4, tile.column / 2, lane);
  }
}

template <int kColumns, int kCluster>
__global__ void __launch_bounds__(kThreads, 1)
    GatedMatmulKernel(const __grid_constant__ CUtensorMap x,
                      const __grid_constant__ CUtensorMap weight, const Params params) {
  extern __shared__ std::byte raw[];
  Shared<kColumns>& shared = *reinterpret_cast<Shared<kColumns>*>(
      raw + (-static_cast<int>(ptx::SharedAddress(raw)) & (ptx::kSwizzleAtomBytes - 1)));
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shared<kColumns>::kStages; ++i) {
      ptx::BarrierInit(&shared.full[i], 1);
      ptx::BarrierInit(&shared.empty[i], kCluster * kConsumerWarps);
    }
    ptx::FenceBarrierInit();
    ptx::PrefetchTensorMap(&x);
    ptx::PrefetchTensorMap(&weight);
  }
  if constexpr (kCluster > 1) {
    ptx::ClusterSync();
  } else {
    __syncthreads();
  }
  const int warpgroup = threadIdx.x / ptx::kWarpgroup;
  __syncwarp();
  if (warpgroup == 0) {
    ptx::GiveRegisters<24>();
    if (threadIdx.x == 0) Produce<kColumns, kCluster>(shared, &x, &weight, params);
    __syncwarp();
  } else {
    ptx::TakeRegisters<240>();
    Consume<kColumns, kCluster>(shared, params, warpgroup - 1, threadIdx.x % ptx::kWarpgroup);
  }
  // A block's memory and barriers stay until its neighbour needs them no more.
  if constexpr (kCluster > 1) ptx::ClusterSync();
}

int64_t Pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

template <int kColumns, int kCluster>
void Launch(const GatedMatmulCall& call, cudaStream_t stream) {
  constexpr auto kKernel = GatedMatmulKernel<kColumns, kCluster>;
  constexpr int kSharedBytes = sizeof(Shared<kColumns>) + ptx::kSwizzleAtomBytes;
  static_assert(kSharedBytes <= kSharedBytesMax);
  static OncePerDevice configured;
  configured.Run([] {
    CudaCheck(
        cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
        "cudaFuncSetAttribute");
  });
  const CUtensorMap x = MakeMatrixMap(call.x, call.rows, call.k, kRows);
  const CUtensorMap weight = MakeMatrixMap(call.weight, call.n, call.k, kColumns / kCluster);
  Params params;
  params.out = call.out;
  params.out_width = call.n / 2;
  params.rows = static_cast<int32_t>(call.rows);
  params.row_tiles = static_cast<int32_t>(Pieces(call.rows, kCluster * kRows));
  params.column_tiles = static_cast<int32_t>(Pieces(call.n, kColumns));
  params.depths = static_cast<int32_t>(Pieces(call.k, kDepth));
  const int clusters =
      std::min(params.row_tiles * params.column_tiles, call.multiprocessors / kCluster);
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kCluster, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = clusters * kCluster;
  config.blockDim = kThreads;
  config.dynamicSmemBytes = kSharedBytes;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  CudaCheck(cudaLaunchKernelEx(&config, kKernel, x, weight, params), "GatedMatmulKernel");
}

}  // namespace

GatedTiling ChooseGatedTiling(int64_t rows, int64_t n, int multiprocessors) {
  if (rows <= kRows) return kGatedTilings.back();
  // Rounds of tiles that the clusters take, each as long as it is wide and a little more: a narrow
  // tile fetches more for each of its products.
  const auto cost = [&](const GatedTiling& tiling) {
    const int64_t tiles = Pieces(rows, tiling.cluster * kRows) * Pieces(n, tiling.columns);
    return Pieces(tiles, multiprocessors / tiling.cluster) * (tiling.columns + kTileColumns);
  };
  return *std::min_element(
      kGatedTilings.begin(), kGatedTilings.end() - 1,
      [&](const GatedTiling& a, const GatedTiling& b) { return cost(a) < cost(b); });
}

void LaunchGatedMatmul(const GatedMatmulCall& call, const GatedTiling& tiling,
                       cudaStream_t stream) {
  if (tiling.cluster == 1) return Launch<128, 1>(call, stream);
  switch (tiling.columns) {
    case 256:
      return Launch<256, 2>(call, stream);
    case 224:
      return Launch<224, 2>(call, stream);
    case 128:
      return Launch<128, 2>(call, stream);
    default:
      LH_CHECK(false, absl::StrCat("tiles of ", tiling.columns, " columns"));
  }
}

}  // namespace longhaul
