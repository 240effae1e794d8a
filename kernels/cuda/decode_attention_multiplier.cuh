// The warps of decode attention that multiply: scores, their softmax and the sums of values, over
// the tiles of the ring.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/cuda/decode_attention_shape.cuh"
#include "kernels/cuda/ptx.cuh"

namespace longhaul::decode_attention {

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
      if (unit_.heads == 0) break;
      LoadQueries();
      // Every reader for itself: tools that look for races do not follow a warp's common arrival.
      ptx::BarrierArrive(&shared_.unit_empty[units_.stage]);
      units_.Next();
      for (int part = 0; part < unit_.parts; ++part) {
        RunPart(unit_.first_part + part);
        HandOverPart(unit_.first_part + part);
      }
    }
    for (int i = 0; i < kFinishers; ++i) HandOver(0);
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

  __device__ void HandOverPart(int part) {
    for (int lanes = 4; lanes < ptx::kWarp; lanes *= 2) {
      for (float& s : sum_) s += __shfl_xor_sync(0xffffffff, s, lanes);
    }
    ptx::BarrierWait(&shared_.part_empty, (handed_over_ & 1) ^ 1);
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
    HandOver(part);
  }

  // Lets the next group of finishers go on; without heads in the unit, for good.
  __device__ void HandOver(int part) {
    ptx::BarrierWait(&shared_.part_empty, (handed_over_ & 1) ^ 1);
    if (threadIdx.x == 0) {
      shared_.part_unit = unit_;
      shared_.part = part;
    }
    Release(&shared_.part_full[handed_over_ % kFinishers]);
    ++handed_over_;
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
  int handed_over_ = 0;
  uint32_t queries_[S::kDimTiles][2];
  // Two heads' largest score and sum of exponentials (of this lane's keys), and [dims, heads] of
  // the values' sums.
  float max_[2];
  float sum_[2];
  float sums_[S::kDimTiles][4];
};

}  // namespace longhaul::decode_attention
