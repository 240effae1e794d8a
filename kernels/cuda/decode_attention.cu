#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"

namespace longhaul {
namespace {

// One warp feeds a ring of slots in shared memory, alternately a tile of keys and its values; the
// other warps multiply. Of every tile, each warp has its own keys, so that warps meet at the ends
// of parts only. Scores and sums are computed transposed, keys (then dims) as the rows of the
// matrix instruction and query heads as its eight columns: a group of eight heads wastes nothing.
constexpr int kWarps = 4;
constexpr int kMathThreads = kWarps * ptx::kWarp;
constexpr int kThreads = kMathThreads + ptx::kWarp;
constexpr int kHeadsMax = 8;  // query heads that share a pass over the keys
constexpr int kSlotBytes = 16384;
constexpr int kSlots = 12;
static_assert(kSlots % 2 == 0, "keys and values of a tile are of one round of the ring");
constexpr int kUnitsAhead = 2;
constexpr int kMathBarrier = 1;  // of the named ones, which join the math warps
constexpr float kLog2E = 1.44269504f;

template <int kHeadDim>
struct Shape {
  static constexpr int kHalves = kHeadDim / 64;  // swizzled rows (of 64 elements) in a key
  static constexpr int kTileKeys = kSlotBytes / (kHeadDim * 2);
  static constexpr int kWarpKeys = kTileKeys / kWarps;
  static constexpr int kKeyTiles = kWarpKeys / 16;  // 16 rows of the matrix instruction
  static constexpr int kDimTiles = kHeadDim / 16;
  static constexpr int kLaneDims = kHeadDim / ptx::kWarp;
  static_assert(kDecodePartKeys % kTileKeys == 0);
};

// What a thread block takes from the queue: an item, for heads that share their keys. Written by
// the feeding warp, with the queries. No heads: the queue is empty.
struct Unit {
  int row;
  int keys;
  int first_part;
  int parts;
  int slot;
  int set;         // of heads
  int first_head;  // query head
  int heads;
};

template <int kHeadDim>
struct SharedMemory {
  alignas(ptx::kSwizzleAtomBytes) std::byte slots[kSlots][kSlotBytes];
  alignas(128) uint16_t queries[kUnitsAhead][kHeadsMax * kHeadDim];
  // A part's results of each warp. The pad keeps a warp's stores off each other's banks.
  alignas(16) float sums[kWarps][kHeadsMax][kHeadDim + 4];
  float2 weights[kWarps][kHeadsMax];
  Unit units[kUnitsAhead];
  uint64_t slot_full[kSlots];
  uint64_t slot_empty[kSlots];
  uint64_t unit_full[kUnitsAhead];
  uint64_t unit_empty[kUnitsAhead];
  uint32_t arrivals;
};

// The parameters, as the kernel wants them.
struct Work {
  const std::byte* qkv;
  int64_t qkv_stride;
  uint16_t* out;
  int64_t out_stride;
  const int32_t* block_tables;
  const DecodeItem* items;
  const int32_t* item_count;
  // queue: units taken beyond the first of each thread block, thread blocks that found it empty;
  // row_arrivals: spans folded; span_arrivals: parts done, at the span's first slot.
  DecodeScratch scratch;
  int heads;
  int kv_heads;
  int group;
  int group_sets;  // sets of heads that a kv head's group is cut into
  int sets;        // kv_heads * group_sets
  int block_tokens;
  int copy_tokens;  // of one copy: a power of two that divides block and tile
  int layer_row;    // where the layer begins in the tensor map
  float scale_log2;
};

__device__ __forceinline__ uint32_t ArriveAt(uint32_t* counter) {
  uint32_t before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
               : "=r"(before)
               : "l"(counter)
               : "memory");
  return before;
}

// --- feeding

template <int kHeadDim>
class Feeder {
 public:
  __device__ Feeder(const CUtensorMap& kv, const Work& work, SharedMemory<kHeadDim>& shared)
      : kv_(kv), work_(work), shared_(shared), lane_(threadIdx.x % ptx::kWarp) {}

  __device__ void Run() {
    const int units = *work_.item_count * work_.sets;
    for (int unit = blockIdx.x; unit < units; unit = Take()) {
      Open(work_.items[unit / work_.sets], unit % work_.sets);
      for (int part = 0; part < unit_.parts; ++part) FeedPart(unit_.first_part + part);
      WaitOnce();
      units_.Next();
    }
    WaitOnce();
    unit_.heads = 0;
    BarrierWaitUnit();
    if (lane_ == 0) {
      shared_.units[units_.stage] = unit_;
      ptx::BarrierArrive(&shared_.unit_full[units_.stage]);
      // Nobody takes from the queue any more once all have been here: it is left as it was found.
      if (ArriveAt(&work_.scratch.queue[1]) == gridDim.x - 1)
        work_.scratch.queue[0] = work_.scratch.queue[1] = 0;
    }
  }

 private:
  using S = Shape<kHeadDim>;

  __device__ int Take() {
    int unit = 0;
    if (lane_ == 0) unit = static_cast<int>(gridDim.x + atomicAdd(&work_.scratch.queue[0], 1u));
    return __shfl_sync(0xffffffff, unit, 0);
  }

  __device__ void BarrierWaitUnit() {
    ptx::BarrierWait(&shared_.unit_empty[units_.stage], units_.parity ^ 1);
  }

  __device__ void Open(const DecodeItem& item, int set) {
    const int kv_head = set / work_.group_sets;
    const int in_group = set % work_.group_sets * kHeadsMax;
    table_ = work_.block_tables + item.table;
    head_row_ = kv_head * work_.block_tokens;
    unit_ = {item.row,
             item.keys,
             item.first_part,
             item.parts,
             item.slot,
             set,
             kv_head * work_.group + in_group,
             min(kHeadsMax, work_.group - in_group)};
    BarrierWaitUnit();
    if (waited_) LoadQueries();
  }

  __device__ void LoadQueries() {
    if (lane_ != 0) return;
    shared_.units[units_.stage] = unit_;
    const uint32_t bytes = unit_.heads * kHeadDim * 2;
    uint64_t* full = &shared_.unit_full[units_.stage];
    ptx::BarrierArriveExpect(full, bytes);
    ptx::BulkLoad(shared_.queries[units_.stage],
                  work_.qkv + (unit_.row * work_.qkv_stride + unit_.first_head * kHeadDim) * 2,
                  bytes, full);
  }

  // Before anything of the kernels ahead of this one is touched: queries, a row's last key, the
  // scratch.
  __device__ void WaitOnce() {
    if (waited_) return;
    ptx::WaitForEarlierKernels();
    ptx::LetLaterKernelsStart();
    waited_ = true;
    if (unit_.heads > 0) LoadQueries();
  }

  // Lane i knows where the part's i-th copy comes from: at 16 tokens a copy, 32 make a part.
  __device__ void FeedPart(int part) {
    static_assert(kDecodePartKeys / 16 <= ptx::kWarp);
    const int first = part * kDecodePartKeys;
    const int end = min(first + kDecodePartKeys, unit_.keys);
    const int key = first + lane_ * work_.copy_tokens;
    int key_row = 0;
    if (key < end) {
      const int block = table_[key / work_.block_tokens];
      key_row = work_.layer_row + block * (2 * work_.kv_heads * work_.block_tokens) + head_row_ +
                key % work_.block_tokens;
    }
    const int value_row = key_row + work_.kv_heads * work_.block_tokens;
    const int tile_copies = S::kTileKeys / work_.copy_tokens;
    for (int tile = first; tile < end; tile += S::kTileKeys) {
      // A full ring drains only once the queries are there.
      if (ring_.parity == 1 || tile + S::kTileKeys >= unit_.keys) WaitOnce();
      const int first_copy = (tile - first) / work_.copy_tokens;
      const int copies = min(tile_copies, (end - tile + work_.copy_tokens - 1) / work_.copy_tokens);
      const int copy = lane_ - first_copy;
      FeedSlot(copy, copies, key_row);
      FeedSlot(copy, copies, value_row);
    }
  }

  __device__ void FeedSlot(int copy, int copies, int row) {
    constexpr int kTokenBytes = kHeadDim * 2;
    uint64_t* full = &shared_.slot_full[ring_.stage];
    ptx::BarrierWait(&shared_.slot_empty[ring_.stage], ring_.parity ^ 1);
    if (lane_ == 0) ptx::BarrierArriveExpect(full, copies * work_.copy_tokens * kTokenBytes);
    __syncwarp();
    if (copy >= 0 && copy < copies) {
      ptx::TmaLoad3d(shared_.slots[ring_.stage] + copy * work_.copy_tokens * kTokenBytes, &kv_,
                     full, 0, row, 0, ptx::kEvictFirst);
    }
    ring_.Next();
  }

  const CUtensorMap& kv_;
  const Work& work_;
  SharedMemory<kHeadDim>& shared_;
  const int lane_;
  ptx::Ring<kSlots> ring_;
  ptx::Ring<kUnitsAhead> units_;
  Unit unit_ = {};
  const int32_t* table_ = nullptr;
  int head_row_ = 0;
  bool waited_ = false;
};

// --- folding

// A head's result over some keys: the largest score (log2), the sum of exponentials relative to it,
// and the values' sum; each lane has its dims.
template <int kHeadDim>
struct Folded {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
  float dims[Shape<kHeadDim>::kLaneDims] = {};
};

__device__ __forceinline__ float WarpMax(float x) {
  for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, i));
  return x;
}
__device__ __forceinline__ float WarpSum(float x) {
  for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffff, x, i);
  return x;
}

template <int kHeadDim>
__device__ __forceinline__ void LoadDims(float (&to)[Shape<kHeadDim>::kLaneDims],
                                         const float* from) {
  if constexpr (kHeadDim == 128) {
    const float4 four = __ldcg(reinterpret_cast<const float4*>(from));
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  } else {
    const float2 two = __ldcg(reinterpret_cast<const float2*>(from));
    to[0] = two.x, to[1] = two.y;
  }
}

// Folds `count` results of one head in their order, by one warp. Sources are `stride` heads apart;
// global memory, past the first-level cache.
template <int kHeadDim>
__device__ Folded<kHeadDim> FoldParts(const float* weights, const float* sums, int64_t stride,
                                      int count) {
  constexpr int kDims = Shape<kHeadDim>::kLaneDims;
  constexpr int kAtOnce = kDecodeSpanParts;  // loads under way together
  const int lane = threadIdx.x % ptx::kWarp;
  Folded<kHeadDim> folded;
  for (int first = 0; first < count; first += kAtOnce) {
    float dims[kAtOnce][kDims];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i < count) {
        LoadDims<kHeadDim>(dims[i], sums + (first + i) * stride * kHeadDim + lane * kDims);
      }
    }
    float2 weight = {-std::numeric_limits<float>::infinity(), 0.0f};
    if (lane < kAtOnce && first + lane < count) {
      weight = __ldcg(reinterpret_cast<const float2*>(weights) + (first + lane) * stride);
    }
    const float max = fmaxf(folded.max, WarpMax(weight.x));
    const float keep = ptx::Exp2(folded.max - max);
    const float scale = ptx::Exp2(weight.x - max);
    folded.max = max;
    folded.sum = folded.sum * keep + WarpSum(scale * weight.y);
    for (float& dim : folded.dims) dim *= keep;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float part_scale = __shfl_sync(0xffffffff, scale, i);
      if (first + i < count) {
        for (int d = 0; d < kDims; ++d) folded.dims[d] += part_scale * dims[i][d];
      }
    }
  }
  return folded;
}

// --- multiplying

template <int kHeadDim>
class Multiplier {
 public:
  __device__ Multiplier(const Work& work, SharedMemory<kHeadDim>& shared)
      : work_(work),
        shared_(shared),
        warp_(threadIdx.x / ptx::kWarp),
        lane_(threadIdx.x % ptx::kWarp) {
    // Where this lane's row of 8 elements lies for LoadMatrices, in keys and in values: the pieces
    // of row r are swapped by r % 8, and pieces two further are an exclusive or away.
    const int keys_row = lane_ & 15;
    const int values_row = (lane_ >> 4) * 8 + (lane_ & 7);
    key_offset_ = keys_row * ptx::kSwizzleRowBytes + (((lane_ >> 4) ^ (lane_ & 7)) << 4);
    value_offset_ = values_row * ptx::kSwizzleRowBytes + ((((lane_ >> 3) & 1) ^ (lane_ & 7)) << 4);
    // A copy of n tokens lies as [halves][n] rows.
    const int copy_tokens = work.copy_tokens;
    half_bytes_ = copy_tokens * ptx::kSwizzleRowBytes;
    for (int i = 0; i < S::kKeyTiles; ++i) {
      const int key = warp_ * S::kWarpKeys + i * 16;
      tile_offset_[i] = (key / copy_tokens * copy_tokens * S::kHalves + key % copy_tokens) *
                        ptx::kSwizzleRowBytes;
    }
  }

  __device__ void Run() {
    ptx::WaitForEarlierKernels();
    while (true) {
      ptx::BarrierWait(&shared_.unit_full[units_.stage], units_.parity);
      unit_ = shared_.units[units_.stage];
      if (unit_.heads == 0) return;
      LoadQueries();
      Release(&shared_.unit_empty[units_.stage]);
      units_.Next();
      for (int part = 0; part < unit_.parts; ++part) {
        RunPart(unit_.first_part + part);
        FinishPart(unit_.first_part + part);
      }
    }
  }

 private:
  using S = Shape<kHeadDim>;

  __device__ void Release(uint64_t* empty) {
    __syncwarp();
    if (lane_ == 0) ptx::BarrierArrive(empty);
  }

  // Columns without a head repeat the first; nobody reads what comes of it.
  __device__ void LoadQueries() {
    const int head = (lane_ & 7) < unit_.heads ? lane_ & 7 : 0;
    const uint32_t row =
        ptx::SharedAddress(shared_.queries[units_.stage]) + head * kHeadDim * 2 + (lane_ >> 3) * 16;
#pragma unroll
    for (int i = 0; i < S::kDimTiles / 2; ++i) {
      uint32_t four[4];
      ptx::LoadMatrices(four, row + i * 64);
      queries_[2 * i][0] = four[0], queries_[2 * i][1] = four[1];
      queries_[2 * i + 1][0] = four[2], queries_[2 * i + 1][1] = four[3];
    }
  }

  __device__ void RunPart(int part) {
    for (int i = 0; i < 2; ++i) {
      max_[i] = -std::numeric_limits<float>::infinity();
      sum_[i] = 0.0f;
    }
#pragma unroll
    for (int d = 0; d < S::kDimTiles; ++d) {
      for (int i = 0; i < 4; ++i) sums_[d][i] = 0.0f;
    }
    const int first = part * kDecodePartKeys + warp_ * S::kWarpKeys;
    const int end = min((part + 1) * kDecodePartKeys, unit_.keys);
    const int tiles = (end - part * kDecodePartKeys + S::kTileKeys - 1) / S::kTileKeys;
    for (int tile = 0; tile < tiles; ++tile) {
      const int valid = end - first - tile * S::kTileKeys;
      if (valid >= S::kWarpKeys) {
        RunTile<false>(valid);
      } else {
        RunTile<true>(valid);
      }
    }
  }

  // `valid` of the warp's keys are the row's. What lies behind them is arbitrary, NaN too: scores
  // are replaced, values cleared.
  template <bool kRagged>
  __device__ __forceinline__ void RunTile(int valid) {
    float scores[S::kKeyTiles][4];
    uint32_t weights[S::kKeyTiles][2];
    ptx::BarrierWait(&shared_.slot_full[ring_.stage], ring_.parity);
    if (!kRagged || valid > 0) {
      Scores(ptx::SharedAddress(shared_.slots[ring_.stage]), scores);
      if constexpr (kRagged) {
#pragma unroll
        for (int t = 0; t < S::kKeyTiles; ++t) {
          const int key = t * 16 + lane_ / 4;
          if (key >= valid) scores[t][0] = scores[t][1] = -std::numeric_limits<float>::infinity();
          if (key + 8 >= valid) {
            scores[t][2] = scores[t][3] = -std::numeric_limits<float>::infinity();
          }
        }
      }
    }
    Release(&shared_.slot_empty[ring_.stage]);
    ring_.Next();
    if (!kRagged || valid > 0) Softmax(scores, weights);
    ptx::BarrierWait(&shared_.slot_full[ring_.stage], ring_.parity);
    if (!kRagged || valid > 0) {
      AddValues<kRagged>(ptx::SharedAddress(shared_.slots[ring_.stage]), weights, valid);
    }
    Release(&shared_.slot_empty[ring_.stage]);
    ring_.Next();
  }

  __device__ __forceinline__ void Scores(uint32_t slot, float (&scores)[S::kKeyTiles][4]) {
#pragma unroll
    for (int t = 0; t < S::kKeyTiles; ++t) {
      const uint32_t tile = slot + tile_offset_[t];
      uint32_t keys[S::kDimTiles][4];
#pragma unroll
      for (int d = 0; d < S::kDimTiles; ++d) {
        ptx::LoadMatrices(keys[d], tile + d / 4 * half_bytes_ + (key_offset_ ^ (d % 4 * 32)));
      }
      // Two chains of products instead of one.
      float even[4] = {}, odd[4] = {};
#pragma unroll
      for (int d = 0; d < S::kDimTiles; d += 2) {
        ptx::MultiplyAddBf16(even, keys[d], queries_[d][0], queries_[d][1]);
        ptx::MultiplyAddBf16(odd, keys[d + 1], queries_[d + 1][0], queries_[d + 1][1]);
      }
      for (int i = 0; i < 4; ++i) scores[t][i] = even[i] + odd[i];
    }
  }

  // scores: [16 keys, 8 heads] each, to weights: the same transposed, bf16.
  __device__ __forceinline__ void Softmax(const float (&scores)[S::kKeyTiles][4],
                                          uint32_t (&weights)[S::kKeyTiles][2]) {
    float max[2] = {max_[0], max_[1]};
#pragma unroll
    for (int t = 0; t < S::kKeyTiles; ++t) {
      for (int i = 0; i < 4; ++i) max[i % 2] = fmaxf(max[i % 2], scores[t][i]);
    }
    for (int lanes = 4; lanes < ptx::kWarp; lanes *= 2) {
      for (float& m : max) m = fmaxf(m, __shfl_xor_sync(0xffffffff, m, lanes));
    }
    if (__any_sync(0xffffffff, max[0] != max_[0] || max[1] != max_[1])) {
      float keep[2];
      for (int i = 0; i < 2; ++i) {
        keep[i] = ptx::Exp2((max_[i] - max[i]) * work_.scale_log2);
        sum_[i] *= keep[i];
        max_[i] = max[i];
      }
#pragma unroll
      for (int d = 0; d < S::kDimTiles; ++d) {
        for (int i = 0; i < 4; ++i) sums_[d][i] *= keep[i % 2];
      }
    }
    const float shift[2] = {max[0] * work_.scale_log2, max[1] * work_.scale_log2};
#pragma unroll
    for (int t = 0; t < S::kKeyTiles; ++t) {
      float e[4];
      for (int i = 0; i < 4; ++i) {
        e[i] = ptx::Exp2(fmaf(scores[t][i], work_.scale_log2, -shift[i % 2]));
      }
      for (int i = 0; i < 2; ++i) {
        sum_[i] += e[i] + e[i + 2];
        weights[t][i] = ptx::TransposeMatrix(ptx::PackBf16(e[2 * i], e[2 * i + 1]));
      }
    }
  }

  template <bool kRagged>
  __device__ __forceinline__ void AddValues(uint32_t slot,
                                            const uint32_t (&weights)[S::kKeyTiles][2], int valid) {
#pragma unroll
    for (int t = 0; t < S::kKeyTiles; ++t) {
      const uint32_t tile = slot + tile_offset_[t];
      uint32_t mask[2];
      if constexpr (kRagged) {
        for (int i = 0; i < 2; ++i) {
          const int left = valid - t * 16 - i * 8 - lane_ % 4 * 2;
          mask[i] = left >= 2 ? 0xffffffff : left == 1 ? 0x0000ffff : 0;
        }
      }
#pragma unroll
      for (int d = 0; d < S::kDimTiles; ++d) {
        uint32_t values[4];
        ptx::LoadMatricesTransposed(values,
                                    tile + d / 4 * half_bytes_ + (value_offset_ ^ (d % 4 * 32)));
        if constexpr (kRagged) {
          for (int i = 0; i < 4; ++i) values[i] &= mask[i / 2];
        }
        ptx::MultiplyAddBf16(sums_[d], values, weights[t][0], weights[t][1]);
      }
    }
  }

  // The warps' shares of the part become the part's result; the last part of a row to be finished,
  // by whichever thread block, brings out the row.
  __device__ void FinishPart(int part) {
    for (int lanes = 4; lanes < ptx::kWarp; lanes *= 2) {
      for (float& s : sum_) s += __shfl_xor_sync(0xffffffff, s, lanes);
    }
    const int head = lane_ % 4 * 2;  // and the next
    if (lane_ < 4) {
      for (int i = 0; i < 2; ++i) {
        shared_.weights[warp_][head + i] = {max_[i] * work_.scale_log2, sum_[i]};
      }
    }
#pragma unroll
    for (int d = 0; d < S::kDimTiles; ++d) {
      for (int i = 0; i < 4; ++i) {
        shared_.sums[warp_][head + i % 2][d * 16 + i / 2 * 8 + lane_ / 4] = sums_[d][i];
      }
    }
    MathSync();
    const int parts = DecodeParts(unit_.keys);
    for (int h = warp_; h < unit_.heads; h += kWarps) {
      const Folded<kHeadDim> folded = FoldWarps(h);
      if (parts == 1) {
        WriteOut(h, folded);
      } else {
        WritePartial(unit_.slot + part, h, folded);
      }
    }
    MathSync();
    if (parts == 1) return;

    const int span = part / kDecodeSpanParts;
    const int span_slot = unit_.slot + span * kDecodeSpanParts;
    const int span_parts = min(kDecodeSpanParts, parts - span * kDecodeSpanParts);
    if (!Last(&work_.scratch.span_arrivals[int64_t{span_slot} * work_.sets + unit_.set],
              span_parts)) {
      return;
    }
    const int spans = (parts + kDecodeSpanParts - 1) / kDecodeSpanParts;
    for (int h = warp_; h < unit_.heads; h += kWarps) {
      const Folded<kHeadDim> folded = FoldSlots(span_slot, h, 1, span_parts);
      if (spans == 1) {
        WriteOut(h, folded);
      } else {
        WritePartial(span_slot, h, folded);
      }
    }
    if (spans == 1) return;
    MathSync();
    if (!Last(&work_.scratch.row_arrivals[int64_t{unit_.row} * work_.sets + unit_.set], spans))
      return;
    for (int h = warp_; h < unit_.heads; h += kWarps) {
      WriteOut(h, FoldSlots(unit_.slot, h, kDecodeSpanParts, spans));
    }
  }

  __device__ void MathSync() { ptx::NamedSync(kMathBarrier, kMathThreads); }

  // After MathSync: what the warps wrote before it is seen by those who arrive last.
  __device__ bool Last(uint32_t* counter, int expected) {
    if (threadIdx.x == 0) {
      shared_.arrivals = ArriveAt(counter);
      if (shared_.arrivals == expected - 1) *counter = 0;
    }
    MathSync();
    return shared_.arrivals == expected - 1;
  }

  __device__ Folded<kHeadDim> FoldWarps(int h) {
    Folded<kHeadDim> folded;
    for (int w = 0; w < kWarps; ++w) folded.max = fmaxf(folded.max, shared_.weights[w][h].x);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float2 weight = shared_.weights[w][h];
      const float scale = ptx::Exp2(weight.x - folded.max);
      folded.sum += scale * weight.y;
      const float* sums = shared_.sums[w][h] + lane_ * S::kLaneDims;
      for (int d = 0; d < S::kLaneDims; ++d) folded.dims[d] += scale * sums[d];
    }
    return folded;
  }

  __device__ int64_t SlotHead(int slot, int h) {
    return int64_t{slot} * work_.heads + unit_.first_head + h;
  }

  __device__ Folded<kHeadDim> FoldSlots(int slot, int h, int slot_step, int count) {
    const int64_t first = SlotHead(slot, h);
    return FoldParts<kHeadDim>(work_.scratch.weights + 2 * first,
                               work_.scratch.sums + first * kHeadDim,
                               int64_t{slot_step} * work_.heads, count);
  }

  __device__ void WritePartial(int slot, int h, const Folded<kHeadDim>& folded) {
    const int64_t at = SlotHead(slot, h);
    if (lane_ == 0) {
      reinterpret_cast<float2*>(work_.scratch.weights)[at] = {folded.max, folded.sum};
    }
    float* sums = work_.scratch.sums + at * kHeadDim + lane_ * S::kLaneDims;
    if constexpr (kHeadDim == 128) {
      *reinterpret_cast<float4*>(sums) = {folded.dims[0], folded.dims[1], folded.dims[2],
                                          folded.dims[3]};
    } else {
      *reinterpret_cast<float2*>(sums) = {folded.dims[0], folded.dims[1]};
    }
  }

  __device__ void WriteOut(int h, const Folded<kHeadDim>& folded) {
    const float inverse = 1.0f / folded.sum;
    uint16_t* out = work_.out + unit_.row * work_.out_stride +
                    int64_t{unit_.first_head + h} * kHeadDim + lane_ * S::kLaneDims;
#pragma unroll
    for (int d = 0; d < S::kLaneDims; d += 2) {
      reinterpret_cast<uint32_t*>(out)[d / 2] =
          ptx::PackBf16(folded.dims[d] * inverse, folded.dims[d + 1] * inverse);
    }
  }

  const Work& work_;
  SharedMemory<kHeadDim>& shared_;
  const int warp_;
  const int lane_;
  uint32_t key_offset_;
  uint32_t value_offset_;
  uint32_t half_bytes_;
  uint32_t tile_offset_[S::kKeyTiles];
  ptx::Ring<kSlots> ring_;
  ptx::Ring<kUnitsAhead> units_;
  Unit unit_;
  uint32_t queries_[S::kDimTiles][2];
  // Two heads' largest score and sum of exponentials (of this lane's keys), and [dims, heads] of
  // the values' sums.
  float max_[2];
  float sum_[2];
  float sums_[S::kDimTiles][4];
};

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1)
    DecodeAttentionKernel(const __grid_constant__ CUtensorMap kv,
                          const __grid_constant__ Work work) {
  extern __shared__ __align__(ptx::kSwizzleAtomBytes) std::byte memory[];
  auto& shared = *reinterpret_cast<SharedMemory<kHeadDim>*>(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSlots; ++i) {
      ptx::BarrierInit(&shared.slot_full[i], 1);
      ptx::BarrierInit(&shared.slot_empty[i], kWarps);
    }
    for (int i = 0; i < kUnitsAhead; ++i) {
      ptx::BarrierInit(&shared.unit_full[i], 1);
      ptx::BarrierInit(&shared.unit_empty[i], kWarps);
    }
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  if (threadIdx.x < kMathThreads) {
    Multiplier<kHeadDim>(work, shared).Run();
  } else {
    Feeder<kHeadDim>(kv, work, shared).Run();
  }
}

template <int kHeadDim>
void Launch(const DecodeAttentionParams& params, const Work& work, cudaStream_t stream) {
  constexpr size_t kBytes = sizeof(SharedMemory<kHeadDim>);
  static const bool configured = [] {
    CudaCheck(cudaFuncSetAttribute(DecodeAttentionKernel<kHeadDim>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
              "shared memory of decode attention");
    return true;
  }();
  static_cast<void>(configured);
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = params.processors;
  config.blockDim = kThreads;
  config.dynamicSmemBytes = kBytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = 1;
  CudaCheck(cudaLaunchKernelEx(&config, DecodeAttentionKernel<kHeadDim>, params.kv, work),
            "decode attention");
}

int CopyTokens(const KvLayout& layout) {
  return std::gcd(layout.block_tokens, kSlotBytes / (layout.head_dim * 2));
}

int64_t LayerRows(const KvLayout& layout, int64_t blocks) {
  return blocks * 2 * layout.kv_heads * layout.block_tokens;
}

int GroupSets(int heads, int kv_heads) { return (heads / kv_heads + kHeadsMax - 1) / kHeadsMax; }

}  // namespace

DecodeScratchLayout::DecodeScratchLayout(int64_t rows, int64_t slots, int heads, int kv_heads,
                                         int head_dim) {
  const int64_t sets = int64_t{kv_heads} * GroupSets(heads, kv_heads);
  constexpr int64_t kQueueBytes = 16;
  row_arrivals_ = kQueueBytes;
  span_arrivals_ = row_arrivals_ + rows * sets * 4;
  counter_bytes_ = (span_arrivals_ + slots * sets * 4 + 15) / 16 * 16;
  sums_ = (counter_bytes_ + slots * heads * 8 + 15) / 16 * 16;
  bytes_ = sums_ + slots * heads * head_dim * 4;
}

DecodeScratch DecodeScratchLayout::At(std::byte* base) const {
  DecodeScratch scratch;
  scratch.queue = reinterpret_cast<uint32_t*>(base);
  scratch.row_arrivals = reinterpret_cast<uint32_t*>(base + row_arrivals_);
  scratch.span_arrivals = reinterpret_cast<uint32_t*>(base + span_arrivals_);
  scratch.weights = reinterpret_cast<float*>(base + counter_bytes_);
  scratch.sums = reinterpret_cast<float*>(base + sums_);
  return scratch;
}

// Heads of keys and of values, their tokens and dims, for all blocks and layers, are rows of one
// matrix; its two halves of 64 columns are the third dimension.
CUtensorMap MakeDecodeKvMap(const void* pool, const KvLayout& layout, int64_t blocks) {
  const int64_t rows = layout.layers * LayerRows(layout, blocks);
  LH_CHECK(rows <= std::numeric_limits<int32_t>::max(), "rows of the pool are counted in 31 bits");
  const uint64_t halves = layout.head_dim / 64;
  return MakeTensorMap(
      pool, {64, static_cast<uint64_t>(rows), halves},
      {static_cast<uint64_t>(layout.head_dim) * 2, ptx::kSwizzleRowBytes},
      {64, static_cast<uint32_t>(CopyTokens(layout)), static_cast<uint32_t>(halves)});
}

void LaunchDecodeAttention(const DecodeAttentionParams& params, cudaStream_t stream) {
  const KvLayout& layout = params.layout;
  Work work = {};
  work.qkv = static_cast<const std::byte*>(params.qkv);
  work.qkv_stride = params.qkv_stride;
  work.out = static_cast<uint16_t*>(params.out);
  work.out_stride = params.out_stride;
  work.block_tables = params.block_tables;
  work.items = params.items;
  work.item_count = params.item_count;
  work.scratch = params.scratch;
  work.heads = params.heads;
  work.kv_heads = layout.kv_heads;
  work.group = params.heads / layout.kv_heads;
  work.group_sets = GroupSets(params.heads, layout.kv_heads);
  work.sets = layout.kv_heads * work.group_sets;
  work.block_tokens = layout.block_tokens;
  work.copy_tokens = CopyTokens(layout);
  work.layer_row = static_cast<int>(params.layer * LayerRows(layout, params.pool_blocks));
  work.scale_log2 = kLog2E / std::sqrt(static_cast<float>(layout.head_dim));
  switch (layout.head_dim) {
    case 64:
      return Launch<64>(params, work, stream);
    case 128:
      return Launch<128>(params, work, stream);
    default:
      LH_CHECK(false, "decode attention takes heads of 64 or 128");
  }
}

}  // namespace longhaul
