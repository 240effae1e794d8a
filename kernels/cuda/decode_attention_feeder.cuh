// The warp of decode attention that takes work from the queue and keeps the ring of slots full.
#pragma once

#include <cstdint>

#include "kernels/cuda/decode_attention_shape.cuh"
#include "kernels/cuda/ptx.cuh"

namespace longhaul::decode_attention {

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
      if (ptx::AddAcquireRelease(&work_.scratch.queue[1], 1) == gridDim.x - 1)
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
    settled_ = item.settled;
    head_row_ = kv_head * work_.block_tokens;
    unit_ = {.row = item.row,
             .keys = item.keys,
             .first_part = item.first_part,
             .parts = item.parts,
             .slot = item.slot,
             .first_head = kv_head * work_.group + in_group,
             .heads = min(kHeadsMax, work_.group - in_group)};
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

  // Before anything of the kernels ahead of this one is touched: queries, this step's keys,
  // the scratch.
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
      if (ring_.parity == 1 || tile + S::kTileKeys > settled_) WaitOnce();
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
  int settled_ = 0;
  bool waited_ = false;
};

}  // namespace longhaul::decode_attention
