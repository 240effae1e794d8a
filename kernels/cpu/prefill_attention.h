// Causal attention of many query rows over paged bf16 keys and values with online softmax (Milakov
// and Gimelshein, 2018; Dao et al., "FlashAttention", 2022). Over a product type P, which says how
// operands are packed into 32-bit units and multiplied: FloatProduct here, Bf16Product in
// bf16_product.h.
//
// Keys come in tiles of kPrefillKeyTile at absolute multiples and each row goes through all of them
// in order, so a row's bits depend on its position only. What lies behind a row's position weighs
// exactly 0, and what is not stored yet is read as 0.
#pragma once

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/kernel_table.h"

namespace longhaul {

inline constexpr int kKeysAtOnce = 16;  // keys that are packed together

// float32 operands: a unit is one element.
template <typename V>
struct FloatProduct {
  using Vector = V;
  using R = typename V::Register;
  static constexpr int kElements = 1;  // in a unit
  static constexpr int kRows = V::kLanes == 16 ? 6 : 3;

  static R MultiplyAdd(uint32_t a, const uint32_t* b, R sum) {
    return V::MultiplyAdd(V::Set(__builtin_bit_cast(float, a)),
                          V::Load(reinterpret_cast<const float*>(b)), sum);
  }
  // units [n] = x [n].
  static void PackFloats(const float* x, int n, uint32_t* units) {
    __builtin_memcpy(units, x, n * sizeof(float));
  }
  static void PackLanes(R x, uint32_t* units) { V::Store(reinterpret_cast<float*>(units), x); }
  // units [dim][kPrefillKeyTile]: column `first` + i = the elements of keys[i].
  static void PackKeys(const uint16_t* const* keys, int dim, int first, uint32_t* units) {
    for (int i = 0; i < kKeysAtOnce; ++i) {
      for (int d = 0; d < dim; ++d) {
        units[d * kPrefillKeyTile + first + i] = static_cast<uint32_t>(keys[i][d]) << 16;
      }
    }
  }
  // units [dim] = the kElements values at `values`.
  static void PackValues(const uint16_t* const* values, int dim, uint32_t* units) {
    for (int d = 0; d < dim; d += V::kLanes) {
      V::Store(reinterpret_cast<float*>(units) + d, V::LoadBf16(values[0] + d));
    }
  }
};

template <typename P>
struct PrefillAttentionKernel {
  using V = typename P::Vector;
  using R = typename V::Register;
  static constexpr int kLanes = V::kLanes;
  static constexpr int kTile = kPrefillKeyTile;
  static constexpr float kLog2E = 1.44269504f;

  // Where the parts of a task's scratch begin.
  struct Scratch {
    uint32_t* queries;  // [rows][dim / kElements] units
    uint32_t* keys;     // [dim / kElements][kTile]
    uint32_t* values;   // [kTile / kElements][dim]
    uint32_t* weights;  // [kRows][kTile / kElements]
    float* scores;      // [kRows][kTile]
    float* sums;        // [rows][dim]
    float* score_max;   // [rows], in units of log2
    float* totals;      // [rows][kLanes]: each lane's part of the row's sum of weights
  };

  static int64_t ScratchBytes(int group, int dim) {
    const int64_t rows = int64_t{kPrefillQueryTile} * group;
    return 4 * (rows * dim + 2 * int64_t{kTile} * dim + 2 * P::kRows * kTile + rows * dim +
                rows * (1 + kLanes)) +
           64;
  }

  static Scratch Carve(const PrefillAttention& t) {
    const int dim = t.kv.head_dim;
    const int64_t rows = int64_t{kPrefillQueryTile} * t.group;
    Scratch s;
    s.queries = reinterpret_cast<uint32_t*>(t.scratch);
    s.keys = s.queries + rows * dim;
    s.values = s.keys + int64_t{kTile} * dim;
    s.weights = s.values + int64_t{kTile} * dim;
    s.scores = reinterpret_cast<float*>(s.weights + P::kRows * kTile);
    s.sums = s.scores + P::kRows * kTile;
    s.score_max = s.sums + rows * dim;
    s.totals = s.score_max + rows;
    return s;
  }

  // c [kRows][width] = (c * keep[row], or 0 without `keep`) + a [kRows][units] b [units][width].
  template <int kRows, int kColumns>
  static void Product(const uint32_t* a, int units, const uint32_t* b, int width, float* c,
                      const float* keep) {
    R acc[kRows][kColumns];
    for (int r = 0; r < kRows; ++r) {
      for (int j = 0; j < kColumns; ++j) {
        acc[r][j] = keep == nullptr
                        ? V::Zero()
                        : V::Multiply(V::Load(c + r * width + j * kLanes), V::Set(keep[r]));
      }
    }
    for (int u = 0; u < units; ++u, b += width) {
      for (int r = 0; r < kRows; ++r) {
        for (int j = 0; j < kColumns; ++j) {
          acc[r][j] = P::MultiplyAdd(a[r * units + u], b + j * kLanes, acc[r][j]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int j = 0; j < kColumns; ++j) V::Store(c + r * width + j * kLanes, acc[r][j]);
    }
  }

  template <int kRows>
  static void AllColumns(const uint32_t* a, int units, const uint32_t* b, int width, float* c,
                         const float* keep) {
    int j = 0;
    for (; j + 4 * kLanes <= width; j += 4 * kLanes) {
      Product<kRows, 4>(a, units, b + j, width, c + j, keep);
    }
    for (; j < width; j += kLanes) Product<kRows, 1>(a, units, b + j, width, c + j, keep);
  }

  static void PackTile(const PrefillAttention& t, int64_t first, int count, const Scratch& s) {
    const int dim = t.kv.head_dim;
    static constexpr uint16_t kZeros[kHeadDimMax] = {};
    const uint16_t* keys[kTile];
    const uint16_t* values[kTile];
    for (int i = 0; i < kTile; i += kKeysAtOnce) {
      const std::byte* slab = nullptr;
      int64_t offset = 0;
      if (i < count) {
        const uint32_t position = static_cast<uint32_t>(first + i);
        const uint32_t block_tokens = static_cast<uint32_t>(t.kv.block_tokens);
        slab = t.kv.layer + t.kv.blocks[position / block_tokens] * t.kv.slab_bytes;
        offset = int64_t{position % block_tokens} * dim;
      }
      for (int j = i; j < i + kKeysAtOnce; ++j, offset += dim) {
        const bool stored = j < count;
        keys[j] =
            stored ? reinterpret_cast<const uint16_t*>(slab + t.kv.key_bytes) + offset : kZeros;
        values[j] =
            stored ? reinterpret_cast<const uint16_t*>(slab + t.kv.value_bytes) + offset : kZeros;
      }
    }
    for (int i = 0; i < kTile; i += kKeysAtOnce) P::PackKeys(keys + i, dim, i, s.keys);
    for (int i = 0; i < kTile; i += P::kElements) {
      P::PackValues(values + i, dim, s.values + i / P::kElements * dim);
    }
  }

  // kRows rows of the task, from `row` on, over one packed tile of keys from `first` on.
  template <int kRows>
  static void RunRows(const PrefillAttention& t, const Scratch& s, int row, int64_t first) {
    const int dim = t.kv.head_dim;
    const int units = dim / P::kElements;
    AllColumns<kRows>(s.queries + int64_t{row} * units, units, s.keys, kTile, s.scores, nullptr);
    float keep[kRows];
    for (int r = 0; r < kRows; ++r) {
      float* scores = s.scores + r * kTile;
      const int64_t seen = t.position + (row + r) / t.group + 1 - first;
      for (int64_t i = seen < 0 ? 0 : seen; i < kTile; ++i) scores[i] = -__builtin_inff();
      keep[r] = Weigh(scores, t.scale * kLog2E, s.score_max + row + r,
                      s.totals + int64_t{row + r} * kLanes, s.weights + r * (kTile / P::kElements));
    }
    AllColumns<kRows>(s.weights, kTile / P::kElements, s.values, dim, s.sums + int64_t{row} * dim,
                      keep);
  }

  // weights = 2^(scores * scale - *score_max), added to the row's totals. The maximum only follows
  // when a score passes it by kSlack, so that most tiles need no look across lanes and no new
  // scale; float32 has the range. Returns what the row's earlier sums are to be multiplied by.
  static float Weigh(const float* scores, float scale, float* score_max, float* totals,
                     uint32_t* weights) {
    constexpr float kSlack = 8.0f;
    const R scales = V::Set(scale);
    R scaled[kTile / kLanes];
    for (int i = 0; i < kTile / kLanes; ++i) {
      scaled[i] = V::Multiply(V::Load(scores + i * kLanes), scales);
    }
    R largest = scaled[0];
    for (int i = 1; i < kTile / kLanes; ++i) largest = V::Max(scaled[i], largest);
    float keep = 1.0f;
    R total = V::Load(totals);
    if (V::AnyAbove(largest, *score_max + kSlack)) {
      const float max = V::Largest(largest);
      float kept[kLanes];
      V::Store(kept, Elementwise<V>::Exp2(V::Set(*score_max - max)));
      keep = kept[0];
      *score_max = max;
      total = V::Multiply(total, V::Set(keep));
    }
    const R shift = V::Set(*score_max);
    for (int i = 0; i < kTile / kLanes; ++i) {
      const R e = Elementwise<V>::Exp2(V::Subtract(scaled[i], shift));
      P::PackLanes(e, weights + i * (kLanes / P::kElements));
      total = V::Add(total, e);
    }
    V::Store(totals, total);
    return keep;
  }

  static void Run(const PrefillAttention& t) {
    const int dim = t.kv.head_dim;
    const int units = dim / P::kElements;
    const int rows = t.queries_count * t.group;
    const Scratch s = Carve(t);
    for (int r = 0; r < rows; ++r) {
      const float* query = t.queries + r / t.group * t.query_stride + r % t.group * dim;
      P::PackFloats(query, dim, s.queries + int64_t{r} * units);
      s.score_max[r] = -1e30f;  // finite, so that no difference of infinities is taken
      V::Store(s.totals + int64_t{r} * kLanes, V::Zero());
    }
    for (int64_t i = 0; i < int64_t{rows} * dim; ++i) s.sums[i] = 0.0f;

    const int64_t end = t.position + t.queries_count;
    for (int64_t first = 0; first < end; first += kTile) {
      const int count = end - first < kTile ? static_cast<int>(end - first) : kTile;
      PackTile(t, first, count, s);
      int row = 0;
      for (; row + P::kRows <= rows; row += P::kRows) RunRows<P::kRows>(t, s, row, first);
      for (; row < rows; ++row) RunRows<1>(t, s, row, first);
    }
    for (int r = 0; r < rows; ++r) {
      float* out = t.out + r / t.group * t.out_stride + r % t.group * dim;
      const R inverse = V::Set(1.0f / V::Sum(V::Load(s.totals + int64_t{r} * kLanes)));
      for (int d = 0; d < dim; d += kLanes) {
        V::Store(out + d, V::Multiply(V::Load(s.sums + int64_t{r} * dim + d), inverse));
      }
    }
  }
};

}  // namespace longhaul
