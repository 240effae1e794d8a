#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/online_softmax.cuh"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma.cuh"

namespace longhaul {
namespace {

using Item = PrefillAttentionItem;

constexpr int kKeyTile = 128;
constexpr int kConsumers = 2;  // warpgroups of 64 rows each
constexpr int kConsumerWarps = 4 * kConsumers;
constexpr int kThreads = (1 + kConsumers) * ptx::kWarpgroup;
constexpr int kStages = 2;    // tiles of keys, and as many of values, on their way or in use
constexpr int kColumns = 64;  // of a swizzled tile
constexpr int kQueryTileBytes = 64 * ptx::kSwizzleRowBytes;      // 64 rows x 64 columns
constexpr int kKeyTileBytes = kKeyTile * ptx::kSwizzleRowBytes;  // 128 keys x 64 columns
// Keys and values of so many bytes stay in the second-level cache while all rows pass over them.
constexpr int64_t kCachedBytes = 32 << 20;
constexpr float kLog2E = 1.4426950408889634f;

// Named barriers; 0 is __syncthreads'.
constexpr int kTurn = 1;  // + consumer: its turn on the matrix unit
constexpr int kTail = 3;  // both consumers have cleared the values behind the last key

template <int kDim>
struct Shared {
  static constexpr int kHalves = kDim / kColumns;
  alignas(1024) std::byte queries[kConsumers][kHalves][kQueryTileBytes];
  alignas(1024) std::byte keys[kStages][kHalves][kKeyTileBytes];
  alignas(1024) std::byte values[kStages][kHalves][kKeyTileBytes];
  uint64_t queries_full, queries_empty;
  uint64_t keys_full[kStages], keys_empty[kStages];
  uint64_t values_full[kStages], values_empty[kStages];
};

struct Params {
  const Item* items;
  const int32_t* block_tables;
  __nv_bfloat16* out;
  int64_t out_width;
  int32_t work_count;  // items x heads
  int32_t item_count;
  int32_t
      section_heads;  // query heads of a section; the items pass over one section after the other
  int32_t heads;
  int32_t kv_heads;
  int32_t layer_slab;  // the layer's first slab in the pool
  int32_t block_tokens;
  int32_t box_tokens;  // tokens that one copy takes: divides block_tokens and kKeyTile
  float scale_log2;    // softmax scale times log2(e)
};

// The item and head of a block's `round`, false when there is none. The work is numbered section by
// section, in a section item by item, heads innermost, so that what runs side by side reads the
// same keys; the blocks of a cluster have neighbouring heads of one group. Clusters take numbers in
// turn, every second round in reverse: items come in falling order of cost, so all get about the
// same.
template <int kCluster>
__device__ __forceinline__ bool Find(const Params& params, int round, Item& item, int& head) {
  const int clusters = gridDim.x / kCluster;
  const int cluster = blockIdx.x / kCluster;
  const int turn = round % 2 == 0 ? cluster : clusters - 1 - cluster;
  const int number = (round * clusters + turn) * kCluster;
  if (number >= params.work_count) return false;
  const int section = number / (params.item_count * params.section_heads);
  const int within = number - section * params.item_count * params.section_heads;
  // The last section may have fewer heads.
  const int first_head = section * params.section_heads;
  const int heads = min(params.section_heads, params.heads - first_head);
  item = params.items[within / heads];
  head = first_head + within % heads + blockIdx.x % kCluster;
  return true;
}

__device__ __forceinline__ int KeyTiles(const Item& item) {
  return (item.position + item.rows + kKeyTile - 1) / kKeyTile;
}

// --- the producer
// ---------------------------------------------------------------------------------

// Copies one tile of keys or values: each lane its own boxes, each block of the cluster its share
// for all of them.
template <int kDim, int kCluster>
__device__ __forceinline__ void LoadTile(std::byte (&tile)[kDim / kColumns][kKeyTileBytes],
                                         const CUtensorMap* cache, uint64_t* full,
                                         const Params& params, const int32_t* table, int tile_index,
                                         int tile_blocks_end, int head, int lane) {
  if (lane == 0) {
    ptx::BarrierArriveExpect(full, kDim / kColumns * kKeyTileBytes);
  }
  __syncwarp();
  const int boxes = kKeyTile / params.box_tokens;
  if (lane < boxes && lane % kCluster == blockIdx.x % kCluster) {
    const int position = tile_index * kKeyTile + lane * params.box_tokens;
    // Behind the sequence's last block that block is read once more: what a tile holds there is
    // masked.
    const int block = min(position / params.block_tokens, tile_blocks_end - 1);
    const int slab = params.layer_slab + table[block];
    const int offset = position % params.block_tokens;
#pragma unroll
    for (int half = 0; half < kDim / kColumns; ++half) {
      std::byte* to = tile[half] + lane * params.box_tokens * ptx::kSwizzleRowBytes;
      if constexpr (kCluster == 1) {
        ptx::TmaLoad4d(to, cache, full, half * kColumns, offset, head, slab);
      } else {
        ptx::TmaLoad4dMulticast(to, cache, full, half * kColumns, offset, head, slab,
                                (1 << kCluster) - 1);
      }
    }
  }
}

template <int kDim, int kCluster>
__device__ __forceinline__ void Produce(Shared<kDim>& shared, const CUtensorMap* queries,
                                        const CUtensorMap* cache, const Params& params, int lane) {
  ptx::Ring<kStages> keys, values;
  Item item;
  int head;
  for (int round = 0; Find<kCluster>(params, round, item, head); ++round) {
    const int kv_head = head / (params.heads / params.kv_heads);
    const int32_t* table = params.block_tables + item.table;
    const int blocks = (item.position + item.rows + params.block_tokens - 1) / params.block_tokens;
    const int tiles = KeyTiles(item);

    ptx::BarrierWait(&shared.queries_empty, (round & 1) ^ 1);
    if (lane == 0) {
      ptx::BarrierArriveExpect(&shared.queries_full, sizeof(shared.queries));
      for (int consumer = 0; consumer < kConsumers; ++consumer) {
        for (int half = 0; half < kDim / kColumns; ++half) {
          ptx::TmaLoad2d(shared.queries[consumer][half], queries, &shared.queries_full,
                         head * kDim + half * kColumns, item.row + consumer * 64);
        }
      }
    }
    __syncwarp();

    // Keys run one tile ahead of values, as the consumers use them.
    for (int tile = 0; tile <= tiles; ++tile) {
      if (tile < tiles) {
        ptx::BarrierWait(&shared.keys_empty[keys.stage], keys.parity ^ 1);
        LoadTile<kDim, kCluster>(shared.keys[keys.stage], cache, &shared.keys_full[keys.stage],
                                 params, table, tile, blocks, kv_head, lane);
        keys.Next();
      }
      if (tile > 0) {
        ptx::BarrierWait(&shared.values_empty[values.stage], values.parity ^ 1);
        LoadTile<kDim, kCluster>(shared.values[values.stage], cache,
                                 &shared.values_full[values.stage], params, table, tile - 1, blocks,
                                 params.kv_heads + kv_head, lane);
        values.Next();
      }
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

// The 64 rows' operand of the scores, [64, dim] in registers: this thread's places of each 16
// columns.
template <int kDim>
__device__ __forceinline__ void LoadQueries(uint32_t (&operand)[kDim / 16][4],
                                            const std::byte* tile, int warp, int lane) {
  const int row = warp * 16 + lane % 16;
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    const int piece = step % 4 * 2 + lane / 16;
    const std::byte* from = tile + step / 4 * kQueryTileBytes + row * ptx::kSwizzleRowBytes +
                            ((piece ^ (row % 8)) * 16);
    ptx::LoadMatrices(operand[step], ptx::SharedAddress(from));
  }
}

// Queues scores [64, 128] = queries [64, dim] keys [128, dim]^T.
template <int kDim>
__device__ __forceinline__ void QueueScores(float (&scores)[64],
                                            const uint32_t (&queries)[kDim / 16][4],
                                            const std::byte* keys) {
#pragma unroll
  for (int half = 0; half < kDim / kColumns; ++half) {
    const uint64_t b = ptx::DescriptorKMajor(keys + half * kKeyTileBytes);
#pragma unroll
    for (int step = 0; step < kColumns / 16; ++step) {
      ptx::WgmmaN128<false>(scores, queries[4 * half + step], b + step * ptx::kStepK16,
                            half > 0 || step > 0);
    }
  }
}

// Queues sums [64, dim] += weights [64, 128] values [128, dim].
__device__ __forceinline__ void QueueSums(float (&sums)[64], const uint32_t (&weights)[32],
                                          const std::byte* values, bool add) {
  const uint64_t b = ptx::DescriptorMnMajor(values, kKeyTileBytes);
#pragma unroll
  for (int step = 0; step < kKeyTile / 16; ++step) {
    ptx::WgmmaN128<true>(sums, weights + 4 * step, b + step * ptx::kStepRows16, add || step > 0);
  }
}
__device__ __forceinline__ void QueueSums(float (&sums)[32], const uint32_t (&weights)[32],
                                          const std::byte* values, bool add) {
  const uint64_t b = ptx::DescriptorMnMajor(values, kKeyTileBytes);
#pragma unroll
  for (int step = 0; step < kKeyTile / 16; ++step) {
    ptx::WgmmaN64(sums, weights + 4 * step, b + step * ptx::kStepRows16, add || step > 0);
  }
}

// What lies behind a sequence's last key may be anything, also NaN, which a weight of zero does not
// remove.
template <int kDim>
__device__ __forceinline__ void ClearTail(std::byte (&values)[kDim / kColumns][kKeyTileBytes],
                                          int first, int thread) {
  constexpr int kRowPieces = ptx::kSwizzleRowBytes / sizeof(uint4);
  for (int half = 0; half < kDim / kColumns; ++half) {
    uint4* pieces = reinterpret_cast<uint4*>(values[half]);
    for (int i = first * kRowPieces + thread; i < kKeyTile * kRowPieces;
         i += kConsumers * ptx::kWarpgroup) {
      pieces[i] = make_uint4(0, 0, 0, 0);
    }
  }
  ptx::FenceAsyncProxy();
  ptx::NamedSync(kTail, kConsumers * ptx::kWarpgroup);
}

template <int kDim, int kCluster>
__device__ __forceinline__ void Consume(Shared<kDim>& shared, const Params& params, int consumer,
                                        int thread) {
  const int lane = thread % ptx::kWarp;
  const int warp = thread / ptx::kWarp;
  const int my_row = consumer * 64 + warp * 16 + lane / 4;  // in the item; the other is 8 below
  ptx::Ring<kStages> keys, values;
  // One arrival a warp: each knows only of itself that the matrix unit has read what it asked for.
  // Stages are filled by every block of the cluster, so all must know.
  const auto release = [&](uint64_t* barrier) {
    __syncwarp();
    if constexpr (kCluster == 1) {
      if (lane == 0) ptx::BarrierArrive(barrier);
    } else {
      if (lane < kCluster) ptx::BarrierArriveAt(barrier, lane);
    }
  };
  if (consumer == 1) ptx::NamedArrive(kTurn + 0, kConsumers * ptx::kWarpgroup);

  float sums[kDim / 2];
  float scores[64];
  uint32_t weights[32];
  uint32_t queries[kDim / 16][4];
  Item item;
  int head;
  for (int round = 0; Find<kCluster>(params, round, item, head); ++round) {
    const int tiles = KeyTiles(item);
    const int my_position = item.position + my_row;
    // The first tile that some row of this warpgroup does not see whole.
    const int first_masked = (item.position + consumer * 64 + 1) / kKeyTile;

    Softmax softmax;
    float shrink[2];
    ptx::BarrierWait(&shared.queries_full, round & 1);
    LoadQueries<kDim>(queries, shared.queries[consumer][0], warp, lane);
    __syncwarp();
    if (lane == 0) ptx::BarrierArrive(&shared.queries_empty);
    ptx::BarrierWait(&shared.keys_full[keys.stage], keys.parity);
    ptx::WgmmaFence();
    KeepInPlace(scores);
    QueueScores<kDim>(scores, queries, shared.keys[keys.stage][0]);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
    KeepInPlace(scores);
    release(&shared.keys_empty[keys.stage]);
    keys.Next();
    if (first_masked == 0) MaskScores(scores, my_position, lane);
    softmax.Update(scores, params.scale_log2, shrink);
    PackWeights(weights, scores);

    for (int tile = 1; tile < tiles; ++tile) {
      ptx::BarrierWait(&shared.keys_full[keys.stage], keys.parity);
      ptx::NamedSync(kTurn + consumer, kConsumers * ptx::kWarpgroup);
      ptx::WgmmaFence();
      KeepInPlace(scores);
      QueueScores<kDim>(scores, queries, shared.keys[keys.stage][0]);
      ptx::WgmmaCommit();
      ptx::BarrierWait(&shared.values_full[values.stage], values.parity);
      KeepInPlace(sums);
      QueueSums(sums, weights, shared.values[values.stage][0], tile > 1);
      ptx::WgmmaCommit();
      ptx::NamedArrive(kTurn + 1 - consumer, kConsumers * ptx::kWarpgroup);
      ptx::WgmmaWait<1>();
      KeepInPlace(scores);
      release(&shared.keys_empty[keys.stage]);
      keys.Next();
      if (tile >= first_masked) MaskScores(scores, my_position - tile * kKeyTile, lane);
      softmax.Update(scores, params.scale_log2, shrink);
      ptx::WgmmaWait<0>();
      KeepInPlace(sums);
      release(&shared.values_empty[values.stage]);
      values.Next();
      Shrink(sums, shrink);
      PackWeights(weights, scores);
    }

    ptx::BarrierWait(&shared.values_full[values.stage], values.parity);
    const int end = item.position + item.rows - (tiles - 1) * kKeyTile;
    if (end < kKeyTile) {
      ClearTail<kDim>(shared.values[values.stage], end, consumer * ptx::kWarpgroup + thread);
    }
    ptx::WgmmaFence();
    KeepInPlace(sums);
    QueueSums(sums, weights, shared.values[values.stage][0], tiles > 1);
    ptx::WgmmaCommit();
    ptx::WgmmaWait<0>();
    KeepInPlace(sums);
    release(&shared.values_empty[values.stage]);
    values.Next();
    StoreRows(sums, softmax, params.out + item.row * params.out_width + head * kDim,
              params.out_width, my_row, item.rows, lane);
  }
}

template <int kDim, int kCluster>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillAttentionKernel(const __grid_constant__ CUtensorMap queries,
                           const __grid_constant__ CUtensorMap cache, const Params params) {
  extern __shared__ std::byte raw[];
  Shared<kDim>& shared = *reinterpret_cast<Shared<kDim>*>(
      raw + (-static_cast<int>(ptx::SharedAddress(raw)) & (ptx::kSwizzleAtomBytes - 1)));
  if (threadIdx.x == 0) {
    ptx::BarrierInit(&shared.queries_full, 1);
    ptx::BarrierInit(&shared.queries_empty, kConsumerWarps);
    for (int i = 0; i < kStages; ++i) {
      ptx::BarrierInit(&shared.keys_full[i], 1);
      ptx::BarrierInit(&shared.keys_empty[i], kCluster * kConsumerWarps);
      ptx::BarrierInit(&shared.values_full[i], 1);
      ptx::BarrierInit(&shared.values_empty[i], kCluster * kConsumerWarps);
    }
    ptx::FenceBarrierInit();
    ptx::PrefetchTensorMap(&queries);
    ptx::PrefetchTensorMap(&cache);
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
    if (threadIdx.x < ptx::kWarp)
      Produce<kDim, kCluster>(shared, &queries, &cache, params, threadIdx.x);
  } else {
    ptx::TakeRegisters<240>();
    Consume<kDim, kCluster>(shared, params, warpgroup - 1, threadIdx.x % ptx::kWarpgroup);
  }
  // A block's memory and barriers stay until its neighbours need them no more.
  if constexpr (kCluster > 1) ptx::ClusterSync();
}

int MultiprocessorCount() {
  int device = 0;
  int count = 0;
  CudaCheck(cudaGetDevice(&device), "cudaGetDevice");
  CudaCheck(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
            "cudaDeviceGetAttribute");
  return count;
}

// The largest number of tokens, up to 64, that divides both a block and a tile of keys.
int BoxTokens(int block_tokens) {
  int box = 64;
  while (block_tokens % box != 0) box /= 2;
  return box;
}

template <int kDim, int kCluster>
void Launch(const PrefillAttentionCall& call, cudaStream_t stream) {
  const KvLayout& layout = call.pool.layout;
  const uint64_t row_bytes = kDim * sizeof(uint16_t);
  const int box_tokens = BoxTokens(layout.block_tokens);
  const CUtensorMap queries = MakeMatrixMap(call.qkv, call.rows, call.width, 64);
  const CUtensorMap cache = MakeTensorMap(
      call.pool.data,
      {kDim, static_cast<uint64_t>(layout.block_tokens), uint64_t{2} * layout.kv_heads,
       static_cast<uint64_t>(layout.layers) * call.pool.blocks},
      {row_bytes, row_bytes * layout.block_tokens, static_cast<uint64_t>(layout.slab_bytes())},
      {kColumns, static_cast<uint32_t>(box_tokens), 1, 1});
  Params params;
  params.items = call.items;
  params.block_tables = call.block_tables;
  params.out = static_cast<__nv_bfloat16*>(call.out);
  params.out_width = int64_t{call.heads} * kDim;
  params.work_count = call.item_count * call.heads;
  params.item_count = call.item_count;
  // Whole groups of query heads, as many as share what the cache holds.
  const int64_t head_bytes = call.keys * 2 * static_cast<int64_t>(row_bytes);
  const int64_t section_kv_heads =
      std::clamp<int64_t>(kCachedBytes / head_bytes, 1, layout.kv_heads);
  params.section_heads = static_cast<int32_t>(section_kv_heads * (call.heads / layout.kv_heads));
  params.heads = call.heads;
  params.kv_heads = layout.kv_heads;
  params.layer_slab = static_cast<int32_t>(call.layer * call.pool.blocks);
  params.block_tokens = layout.block_tokens;
  params.box_tokens = box_tokens;
  params.scale_log2 = kLog2E / sqrtf(static_cast<float>(kDim));
  constexpr int kSharedBytes = sizeof(Shared<kDim>) + ptx::kSwizzleAtomBytes;
  static const int multiprocessors = MultiprocessorCount();
  static OncePerDevice configured;
  configured.Run([] {
    CudaCheck(cudaFuncSetAttribute(PrefillAttentionKernel<kDim, kCluster>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
              "cudaFuncSetAttribute");
  });
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kCluster, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = std::min(params.work_count, multiprocessors / kCluster * kCluster);
  config.blockDim = kThreads;
  config.dynamicSmemBytes = kSharedBytes;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  CudaCheck(
      cudaLaunchKernelEx(&config, PrefillAttentionKernel<kDim, kCluster>, queries, cache, params),
      "PrefillAttentionKernel");
}

template <int kDim>
void Launch(const PrefillAttentionCall& call, cudaStream_t stream) {
  // Neighbouring heads of one group read the same keys and values: two blocks fetch them once.
  if (call.heads / call.pool.layout.kv_heads % 2 == 0) {
    Launch<kDim, 2>(call, stream);
  } else {
    Launch<kDim, 1>(call, stream);
  }
}

}  // namespace

void LaunchPrefillAttention(const PrefillAttentionCall& call, cudaStream_t stream) {
  const KvLayout& layout = call.pool.layout;
  LH_CHECK(int64_t{layout.layers} * call.pool.blocks <= std::numeric_limits<int32_t>::max(),
           absl::StrCat(layout.layers, " layers of ", call.pool.blocks, " blocks"));
  if (call.item_count == 0) return;
  switch (layout.head_dim) {
    case 64:
      return Launch<64>(call, stream);
    case 128:
      return Launch<128>(call, stream);
    default:
      LH_CHECK(false,
               absl::StrCat("heads of ", layout.head_dim, "; CheckShapes lets none through"));
  }
}

}  // namespace longhaul
