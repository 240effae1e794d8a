// What the parts of decode attention's kernel (decode_attention.cu) share: its shape, its shared
// memory, its parameters.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/ptx.cuh"

namespace longhaul::decode_attention {

// One warp feeds a ring of slots in shared memory, alternately a tile of keys and its values; the
// other warps multiply. Of every tile, each warp has its own keys, so that warps meet at the ends
// of parts only. Scores and sums are computed transposed, keys (then dims) as the rows of the
// matrix instruction and query heads as its eight columns: a group of eight heads wastes nothing.
//
// A third role finishes parts: it waits for global memory again and again, and under a load that
// fills all queues each round trip takes microseconds. Groups of warps do so in turn, enough of
// them that the multiplying warps do not wait for one that is away to fold a span.
constexpr int kWarps = 4;  // that multiply
constexpr int kFinishers = 2;
constexpr int kFinisherWarps = 4;
constexpr int kFirstFinisher = kWarps;
constexpr int kFeeder = kFirstFinisher + kFinishers * kFinisherWarps;
constexpr int kThreads = (kFeeder + 1) * ptx::kWarp;
constexpr int kHeadsMax = 8;  // query heads that share a pass over the keys
constexpr int kSlotBytes = 32768;
constexpr int kSlots = 4;
static_assert(kSlots % 2 == 0, "keys and values of a tile are of one round of the ring");
constexpr int kUnitsAhead = 2;

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
  Unit part_unit;
  int part;
  Unit units[kUnitsAhead];
  uint64_t slot_full[kSlots];
  uint64_t slot_empty[kSlots];
  uint64_t unit_full[kUnitsAhead];
  uint64_t unit_empty[kUnitsAhead];
  uint64_t part_full[kFinishers];
  uint64_t part_empty;
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

}  // namespace longhaul::decode_attention
