// One decode row's attention to a tile of keys, in float32 over bf16 keys and values: a part of the
// whole, merged with its neighbours by the backend (Dao et al., "Flash-Decoding", 2023). Over a
// vector type V, see kernel_table.h.
#pragma once

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/kernel_table.h"

namespace longhaul {

template <typename V>
struct DecodeAttentionKernel {
  using R = typename V::Register;
  static constexpr int kLanes = V::kLanes;
  static constexpr float kLog2E = 1.44269504f;
  static constexpr int kHeadsAtOnce = 4;  // query heads that share a pass over the keys

  // HEADS heads whose queries, sums and scores follow each other.
  template <int kHeads>
  static void RunHeads(const DecodeAttention& t, int head) {
    const int dim = t.kv.head_dim;
    const int count = static_cast<int>(t.end - t.first);
    const float* queries = t.queries + head * dim;
    float* sums = t.sums + head * dim;
    float* scores = t.scratch + head * kDecodeKeyTile;

    // kLanes keys of one block at a time; their products' lanes are summed together at the end.
    for (int i = 0; i < count; i += kLanes) {
      const std::byte* keys = Rows(t, i, t.kv.key_bytes);
      const std::byte* next = i + kLanes < count ? Rows(t, i + kLanes, t.kv.key_bytes) : keys;
      const std::byte* values = Rows(t, i, t.kv.value_bytes);
      // Blocks lie scattered, so the processor does not guess what comes next; the values are read
      // after all keys.
      for (int b = 0; b < kLanes * dim * 2; b += 64) {
        __builtin_prefetch(next + b, 0, 3);
        __builtin_prefetch(values + b, 0, 2);
      }
      R dots[kHeads][kLanes];
      // Behind the last key lie bytes of its block; Softmax takes those scores out.
      for (int j = 0; j < kLanes; ++j) {
        const uint16_t* key = reinterpret_cast<const uint16_t*>(keys) + j * dim;
        R sum[kHeads];
        for (int h = 0; h < kHeads; ++h) sum[h] = V::Zero();
        for (int d = 0; d < dim; d += kLanes) {
          const R k = V::LoadBf16(key + d);
          for (int h = 0; h < kHeads; ++h) {
            sum[h] = V::MultiplyAdd(k, V::Load(queries + h * dim + d), sum[h]);
          }
        }
        for (int h = 0; h < kHeads; ++h) dots[h][j] = sum[h];
      }
      for (int h = 0; h < kHeads; ++h) {
        V::Store(scores + h * kDecodeKeyTile + i,
                 V::Multiply(V::SumEach(dots[h]), V::Set(t.scale * kLog2E)));
      }
    }
    for (int h = 0; h < kHeads; ++h) {
      Softmax(scores + h * kDecodeKeyTile, count, t.score_max + head + h, t.weight + head + h);
    }

    for (int j = 0; j < kHeads * dim; ++j) sums[j] = 0.0f;
    // Values pass once for each kLanes * kColumns dimensions, their sums in registers.
    constexpr int kColumns = 4;
    for (int d = 0; d < dim; d += kLanes * kColumns) {
      const int columns = (dim - d) / kLanes < kColumns ? (dim - d) / kLanes : kColumns;
      if (columns == kColumns) {
        AddValues<kHeads, kColumns>(t, scores, sums, d);
      } else {
        for (int c = 0; c < columns; ++c) AddValues<kHeads, 1>(t, scores, sums, d + c * kLanes);
      }
    }
  }

  // The keys or values from the tile's key i on, a multiple of kLanes: kLanes of them follow each
  // other.
  static const std::byte* Rows(const DecodeAttention& t, int i, int64_t offset) {
    const uint32_t position = static_cast<uint32_t>(t.first + i);
    const uint32_t block_tokens = static_cast<uint32_t>(t.kv.block_tokens);
    return t.kv.layer + t.kv.blocks[position / block_tokens] * t.kv.slab_bytes + offset +
           int64_t{position % block_tokens} * t.kv.head_dim * 2;
  }

  template <int kHeads, int kColumns>
  static void AddValues(const DecodeAttention& t, const float* weights, float* sums, int d) {
    const int dim = t.kv.head_dim;
    const int count = static_cast<int>(t.end - t.first);
    R acc[kHeads][kColumns];
    for (int h = 0; h < kHeads; ++h) {
      for (int c = 0; c < kColumns; ++c) acc[h][c] = V::Zero();
    }
    for (int i = 0; i < count; i += kLanes) {
      const uint16_t* value = reinterpret_cast<const uint16_t*>(Rows(t, i, t.kv.value_bytes)) + d;
      const int run = count - i < kLanes ? count - i : kLanes;
      for (int j = 0; j < run; ++j, value += dim) {
        R v[kColumns];
        for (int c = 0; c < kColumns; ++c) v[c] = V::LoadBf16(value + c * kLanes);
        for (int h = 0; h < kHeads; ++h) {
          const R weight = V::Set(weights[h * kDecodeKeyTile + i + j]);
          for (int c = 0; c < kColumns; ++c) {
            acc[h][c] = V::MultiplyAdd(weight, v[c], acc[h][c]);
          }
        }
      }
    }
    for (int h = 0; h < kHeads; ++h) {
      for (int c = 0; c < kColumns; ++c) V::Store(sums + h * dim + d + c * kLanes, acc[h][c]);
    }
  }

  // scores [kDecodeKeyTile], the first `count` set: replaced by 2^(score - max).
  static void Softmax(float* scores, int count, float* score_max, float* weight) {
    const int padded = (count + kLanes - 1) / kLanes * kLanes;
    for (int i = count; i < padded; ++i) scores[i] = -__builtin_inff();
    R largest = V::Load(scores);
    for (int i = kLanes; i < padded; i += kLanes) largest = V::Max(V::Load(scores + i), largest);
    const float max = V::Largest(largest);
    const R shift = V::Set(max);
    R total = V::Zero();
    for (int i = 0; i < padded; i += kLanes) {
      const R e = Elementwise<V>::Exp2(V::Subtract(V::Load(scores + i), shift));
      V::Store(scores + i, e);
      total = V::Add(total, e);
    }
    *score_max = max;
    *weight = V::Sum(total);
  }

  static void Run(const DecodeAttention& t) {
    int head = 0;
    for (; head + kHeadsAtOnce <= t.group; head += kHeadsAtOnce) RunHeads<kHeadsAtOnce>(t, head);
    switch (t.group - head) {
      case 3:
        return RunHeads<3>(t, head);
      case 2:
        return RunHeads<2>(t, head);
      case 1:
        return RunHeads<1>(t, head);
      default:
        return;
    }
  }
};

}  // namespace longhaul
