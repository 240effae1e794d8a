#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
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
constexpr int kStages = 2;      // tiles of keys, and as many of values, on their way or in use
constexpr int kWorkStages = 2;  // work items announced ahead
constexpr int kColumns = 64;    // of a swizzled tile
constexpr int kQueryTileBytes = 64 * ptx::kSwizzleRowBytes;      // 64 rows x 64 columns
constexpr int kKeyTileBytes = kKeyTile * ptx::kSwizzleRowBytes;  // 128 keys x 64 columns
constexpr int32_t kNoMoreWork = -1;
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
  uint64_t work_full[kWorkStages], work_empty[kWorkStages];
  int32_t work[kWorkStages];
};

struct Params {
  const Item* items;
  const int32_t* block_tables;
  int32_t* next;
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

// The item and head that a number of work stands for: section by section, then item by item, heads
// innermost, so that what runs side by side reads the same keys.
struct Work {
  Item item;
  int head;
};
__device__ __forceinline__ Work Find(const Params& params, int32_t number) {
  const int32_t section = number / (params.item_count * params.section_heads);
  const int32_t within = number - section * params.item_count * params.section_heads;
  // The last section may have fewer heads.
  const int32_t first_head = section * params.section_heads;
  const int32_t heads = min(params.section_heads, params.heads - first_head);
  return {params.items[within / heads], first_head + within % heads};
}

__device__ __forceinline__ int KeyTiles(const Item& item) {
  return (item.position + item.rows + kKeyTile - 1) / kKeyTile;
}

// --- the producer
// ---------------------------------------------------------------------------------

// Copies one tile of keys or values: each lane its own boxes.
template <int kDim>
__device__ __forceinline__ void LoadTile(std::byte (&tile)[kDim / kColumns][kKeyTileBytes],
                                         const CUtensorMap* cache, uint64_t* full,
                                         const Params& params, const int32_t* table, int tile_index,
                                         int tile_blocks_end, int head, int lane) {
  if (lane == 0) {
    ptx::BarrierArriveExpect(full, kDim / kColumns * kKeyTileBytes);
  }
  __syncwarp();
  const int boxes = kKeyTile / params.box_tokens;
  if (lane < boxes) {
    const int position = tile_index * kKeyTile + lane * params.box_tokens;
    // Behind the sequence's last block that block is read once more: what a tile holds there is
    // masked.
    const int block = min(position / params.block_tokens, tile_blocks_end - 1);
    const int slab = params.layer_slab + table[block];
    const int offset = position % params.block_tokens;
#pragma unroll
    for (int half = 0; half < kDim / kColumns; ++half) {
      ptx::TmaLoad4d(tile[half] + lane * params.box_tokens * ptx::kSwizzleRowBytes, cache, full,
                     half * kColumns, offset, head, slab);
    }
  }
}

template <int kDim>
__device__ __forceinline__ void Produce(Shared<kDim>& shared, const CUtensorMap* queries,
                                        const CUtensorMap* cache, const Params& params, int lane) {
  ptx::Ring<kStages> keys, values;
  ptx::Ring<kWorkStages> announced;
  uint32_t queries_parity = 0;
  int32_t work = blockIdx.x;
  for (;;) {
    ptx::BarrierWait(&shared.work_empty[announced.stage], announced.parity ^ 1);
    if (lane == 0) {
      shared.work[announced.stage] = work < params.work_count ? work : kNoMoreWork;
      ptx::BarrierArrive(&shared.work_full[announced.stage]);
    }
    __syncwarp();
    announced.Next();
    if (work >= params.work_count) return;

    const auto [item, head] = Find(params, work);
    const int kv_head = head / (params.heads / params.kv_heads);
    const int32_t* table = params.block_tables + item.table;
    const int blocks = (item.position + item.rows + params.block_tokens - 1) / params.block_tokens;
    const int tiles = KeyTiles(item);

    ptx::BarrierWait(&shared.queries_empty, queries_parity ^ 1);
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
    queries_parity ^= 1;

    // Keys run one tile ahead of values, as the consumers use them.
    for (int tile = 0; tile <= tiles; ++tile) {
      if (tile < tiles) {
        ptx::BarrierWait(&shared.keys_empty[keys.stage], keys.parity ^ 1);
        LoadTile<kDim>(shared.keys[keys.stage], cache, &shared.keys_full[keys.stage], params, table,
                       tile, blocks, kv_head, lane);
        keys.Next();
      }
      if (tile > 0) {
        ptx::BarrierWait(&shared.values_empty[values.stage], values.parity ^ 1);
        LoadTile<kDim>(shared.values[values.stage], cache, &shared.values_full[values.stage],
                       params, table, tile - 1, blocks, params.kv_heads + kv_head, lane);
        values.Next();
      }
    }

    if (lane == 0) work = atomicAdd(params.next, 1) + gridDim.x;
    work = __shfl_sync(0xffffffff, work, 0);
  }
}

// --- the consumers
// --------------------------------------------------------------------------------

template <int kCount>
__device__ __forceinline__ void KeepInPlace(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) ptx::KeepInPlace(values[i]);
}

// Queues scores [64, 128] = queries [64, dim] keys [128, dim]^T.
template <int kDim>
__device__ __forceinline__ void QueueScores(float (&scores)[64], const std::byte* queries,
                                            const std::byte* keys) {
#pragma unroll
  for (int half = 0; half < kDim / kColumns; ++half) {
    const uint64_t a = ptx::DescriptorKMajor(queries + half * kQueryTileBytes);
    const uint64_t b = ptx::DescriptorKMajor(keys + half * kKeyTileBytes);
#pragma unroll
    for (int step = 0; step < kColumns / 16; ++step) {
      ptx::WgmmaN128(scores, a + step * ptx::kStepK16, b + step * ptx::kStepK16,
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
    ptx::WgmmaN128Values(sums, weights + 4 * step, b + step * ptx::kStepRows16, add || step > 0);
  }
}
__device__ __forceinline__ void QueueSums(float (&sums)[32], const uint32_t (&weights)[32],
                                          const std::byte* values, bool add) {
  const uint64_t b = ptx::DescriptorMnMajor(values, kKeyTileBytes);
#pragma unroll
  for (int step = 0; step < kKeyTile / 16; ++step) {
    ptx::WgmmaN64Values(sums, weights + 4 * step, b + step * ptx::kStepRows16, add || step > 0);
  }
}

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

template <int kDim>
__device__ __forceinline__ void Consume(Shared<kDim>& shared, const Params& params, int consumer,
                                        int thread) {
  const int lane = thread % ptx::kWarp;
  const int warp = thread / ptx::kWarp;
  const int my_row = consumer * 64 + warp * 16 + lane / 4;  // in the item; the other is 8 below
  const std::byte* queries = shared.queries[consumer][0];
  ptx::Ring<kStages> keys, values;
  ptx::Ring<kWorkStages> announced;
  uint32_t queries_parity = 0;
  // One arrival a warp: each knows only of itself that the matrix unit has read what it asked for.
  const auto release = [&](uint64_t* barrier) {
    __syncwarp();
    if (lane == 0) ptx::BarrierArrive(barrier);
  };
  if (consumer == 1) ptx::NamedArrive(kTurn + 0, kConsumers * ptx::kWarpgroup);

  float sums[kDim / 2];
  float scores[64];
  uint32_t weights[32];
  for (;;) {
    ptx::BarrierWait(&shared.work_full[announced.stage], announced.parity);
    const int32_t work = shared.work[announced.stage];
    release(&shared.work_empty[announced.stage]);
    announced.Next();
    if (work == kNoMoreWork) return;
    const auto [item, head] = Find(params, work);
    const int tiles = KeyTiles(item);
    const int my_position = item.position + my_row;
    // The first tile that some row of this warpgroup does not see whole.
    const int first_masked = (item.position + consumer * 64 + 1) / kKeyTile;

    Softmax softmax;
    float shrink[2];
    ptx::BarrierWait(&shared.queries_full, queries_parity);
    queries_parity ^= 1;
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
    release(&shared.queries_empty);

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

template <int kDim>
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
      ptx::BarrierInit(&shared.keys_empty[i], kConsumerWarps);
      ptx::BarrierInit(&shared.values_full[i], 1);
      ptx::BarrierInit(&shared.values_empty[i], kConsumerWarps);
    }
    for (int i = 0; i < kWorkStages; ++i) {
      ptx::BarrierInit(&shared.work_full[i], 1);
      ptx::BarrierInit(&shared.work_empty[i], kConsumerWarps);
    }
    ptx::FenceBarrierInit();
    ptx::PrefetchTensorMap(&queries);
    ptx::PrefetchTensorMap(&cache);
  }
  __syncthreads();
  const int warpgroup = threadIdx.x / ptx::kWarpgroup;
  if (warpgroup == 0) {
    ptx::GiveRegisters<24>();
    if (threadIdx.x < ptx::kWarp) Produce<kDim>(shared, &queries, &cache, params, threadIdx.x);
  } else {
    ptx::TakeRegisters<240>();
    Consume<kDim>(shared, params, warpgroup - 1, threadIdx.x % ptx::kWarpgroup);
  }
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

template <int kDim>
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
  params.next = call.next;
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
  static const int multiprocessors = [] {
    CudaCheck(cudaFuncSetAttribute(PrefillAttentionKernel<kDim>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
              "cudaFuncSetAttribute");
    return MultiprocessorCount();
  }();
  const int grid = std::min(params.work_count, multiprocessors);
  PrefillAttentionKernel<kDim><<<grid, kThreads, kSharedBytes, stream>>>(queries, cache, params);
  CudaCheckLaunch("PrefillAttentionKernel");
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
