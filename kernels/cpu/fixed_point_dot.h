// Dot products of decode rows with Q4_0, Q4_1 and Q8_0 weights by VNNI: the weights' integers as
// the file has them, activations as 16-bit fixed point v with one scale for each 32 neighbours,
// split into two signed bytes, v = 256 high + low. The products are exact; an activation is off by
// at most 1/65278 of its block's largest. For files compiled with AVX-512 and VNNI.
//
// A packed row is a record for each pair of blocks, see Pair.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/float_dot.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/vector_avx512.h"

namespace longhaul {

struct FixedPointDot {
  static constexpr int kBlock = 32;
  static constexpr float kLargest = 32639.0f;  // 127 * 256 + 127

  struct alignas(64) Pair {
    int8_t high[64];
    int8_t low[64];
    float scales[16];    // the first block's eight times, then the second's
    int32_t offset[16];  // -128 * sum of v of each four: takes out that Q8_0 is read as unsigned
    float sums[4];       // 0, scale * sum of v, 0, the second's: meets Q4_1's minimum
    float sums_by_eight[4];  // -8 scale * sum of v, 0, the second's, 0: meets Q4_0's scale
  };

  static bool Takes(DType dtype) {
    return dtype == DType::kQ4_0 || dtype == DType::kQ4_1 || dtype == DType::kQ8_0;
  }
  static int64_t Pairs(int64_t n) { return (n / kBlock + 1) / 2; }
  static int64_t PackedRowBytes(int64_t n) { return Pairs(n) * sizeof(Pair); }

  static void PackRow(const float* x, int64_t n, std::byte* packed) {
    Pair* pairs = reinterpret_cast<Pair*>(packed);
    const int64_t blocks = n / kBlock;
    if (blocks % 2 == 1) __builtin_memset(pairs + blocks / 2, 0, sizeof(Pair));
    for (int64_t b = 0; b < blocks; ++b) PackBlock(x + b * kBlock, pairs[b / 2], b % 2);
  }

  static void PackBlock(const float* x, Pair& pair, int half) {
    const __m512 x0 = _mm512_loadu_ps(x);
    const __m512 x1 = _mm512_loadu_ps(x + 16);
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x0), _mm512_abs_ps(x1)));
    const float scale = largest / kLargest;
    const __m512 inverse = _mm512_set1_ps(largest > 0.0f ? kLargest / largest : 0.0f);
    const __m512i v0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, inverse));
    const __m512i v1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, inverse));
    const float sum = scale * static_cast<float>(_mm512_reduce_add_epi32(_mm512_add_epi32(v0, v1)));
    const __m256i high = _mm256_set_m128i(HighBytes(v1), HighBytes(v0));
    const __m256i low = _mm256_set_m128i(_mm512_cvtepi32_epi8(v1), _mm512_cvtepi32_epi8(v0));
    const __m256i ones = _mm256_set1_epi8(1);
    const __m256i zero = _mm256_setzero_si256();
    const __m256i fours =
        _mm256_dpbusd_epi32(_mm256_slli_epi32(_mm256_dpbusd_epi32(zero, ones, high), 8), ones, low);
    const __m256i offset = _mm256_sub_epi32(zero, _mm256_slli_epi32(fours, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(pair.high + 32 * half), high);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(pair.low + 32 * half), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(pair.offset + 8 * half), offset);
    _mm256_storeu_ps(pair.scales + 8 * half, _mm256_set1_ps(scale));
    pair.sums[2 * half] = 0.0f;
    pair.sums[2 * half + 1] = sum;
    pair.sums_by_eight[2 * half] = -8.0f * sum;
    pair.sums_by_eight[2 * half + 1] = 0.0f;
  }

  // The signed byte that leaves a signed low byte.
  static __m128i HighBytes(__m512i v) {
    return _mm512_cvtepi32_epi8(_mm512_srai_epi32(_mm512_add_epi32(v, _mm512_set1_epi32(128)), 8));
  }

  // The formats: bytes of a block and where its integers begin; two blocks' integers as 64 unsigned
  // bytes; their headers as float32, each block's scale in lane 0 or 2; what meets the headers to
  // add the minima.
  struct Q4_0 {
    static constexpr int kBytes = 18;
    static constexpr int kHeader = 2;
    static constexpr bool kOffset = false;
    static __m512i Integers(const std::byte* a, const std::byte* b) { return Nibbles(a, b); }
    static __m128 Headers(const std::byte* a, const std::byte* b) { return Halves(a, b); }
    static const float* Sums(const Pair& pair) { return pair.sums_by_eight; }
  };
  struct Q4_1 {
    static constexpr int kBytes = 20;
    static constexpr int kHeader = 4;
    static constexpr bool kOffset = false;
    static __m512i Integers(const std::byte* a, const std::byte* b) { return Nibbles(a, b); }
    static __m128 Headers(const std::byte* a, const std::byte* b) {
      return _mm_cvtph_ps(_mm_unpacklo_epi32(_mm_loadu_si32(a), _mm_loadu_si32(b)));
    }
    static const float* Sums(const Pair& pair) { return pair.sums; }
  };
  struct Q8_0 {
    static constexpr int kBytes = 34;
    static constexpr int kHeader = 2;
    static constexpr bool kOffset = true;
    static __m512i Integers(const std::byte* a, const std::byte* b) {
      const __m512i both = _mm512_inserti64x4(
          _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a))),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)), 1);
      return _mm512_xor_si512(both, _mm512_set1_epi8(-128));
    }
    static __m128 Headers(const std::byte* a, const std::byte* b) { return Halves(a, b); }
  };
  // Low nibbles are a block's first 16 elements, high nibbles its last.
  static __m512i Nibbles(const std::byte* a, const std::byte* b) {
    const __m512i first =
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a)));
    const __m512i both = _mm512_mask_broadcast_i32x4(
        first, 0xff00, _mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
    const __m512i shifts = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    return _mm512_and_si512(_mm512_srlv_epi64(both, shifts), _mm512_set1_epi8(15));
  }
  static __m128 Halves(const std::byte* a, const std::byte* b) {
    return _mm_cvtph_ps(_mm_unpacklo_epi32(_mm_loadu_si16(a), _mm_loadu_si16(b)));
  }

  // dots[r * 16] = the lanes whose sum is one weight row times packed row r.
  template <typename Q, int kRows>
  static void Dot(const std::byte* row, int64_t blocks, const Pair* packed, int64_t packed_pairs,
                  __m512* dots) {
    const __m512i header_lanes = _mm512_set_epi32(2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512 sums[kRows];
    __m128 minima[kRows];
    for (int r = 0; r < kRows; ++r) {
      sums[r] = _mm512_setzero_ps();
      minima[r] = _mm_setzero_ps();
    }
    for (int64_t b = 0; b < blocks; b += 2, row += 2 * Q::kBytes, ++packed) {
      // A last block without a neighbour meets itself and zeros.
      const std::byte* second = b + 1 < blocks ? row + Q::kBytes : row;
      const __m512i weights = Q::Integers(row + Q::kHeader, second + Q::kHeader);
      const __m128 headers = Q::Headers(row, second);
      const __m512 scales = _mm512_permutexvar_ps(header_lanes, _mm512_castps128_ps512(headers));
      for (int r = 0; r < kRows; ++r) {
        const Pair& pair = packed[r * packed_pairs];
        __m512i sum =
            _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, _mm512_load_si512(pair.high));
        sum = _mm512_slli_epi32(sum, 8);
        if constexpr (Q::kOffset) sum = _mm512_add_epi32(sum, _mm512_load_si512(pair.offset));
        sum = _mm512_dpbusd_epi32(sum, weights, _mm512_load_si512(pair.low));
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum),
                                  _mm512_mul_ps(scales, _mm512_load_ps(pair.scales)), sums[r]);
        if constexpr (!Q::kOffset) {
          minima[r] = _mm_fmadd_ps(headers, _mm_load_ps(Q::Sums(pair)), minima[r]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      dots[r * 16] =
          Q::kOffset ? sums[r] : _mm512_add_ps(sums[r], _mm512_zextps128_ps512(minima[r]));
    }
  }

  // Sixteen weight rows (or fewer, `count`) with kRows packed rows.
  template <typename Q, int kRows>
  static void DotTile(const WeightRows& w, int64_t first, int count, const Pair* packed, float* out,
                      int64_t out_stride, bool accumulate) {
    const int64_t pairs = Pairs(w.cols);
    __m512 dots[kRows * 16];
    for (int i = 0; i < count; ++i) {
      Dot<Q, kRows>(w.data + (first + i) * w.row_bytes, w.cols / kBlock, packed, pairs, dots + i);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int i = count; i < 16; ++i) dots[r * 16 + i] = _mm512_setzero_ps();
      const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
      float* to = out + r * out_stride + first;
      __m512 sums = VectorAvx512::SumEach(dots + r * 16);
      if (accumulate) sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sums);
      _mm512_mask_storeu_ps(to, mask, sums);
    }
  }

  template <typename Q>
  static void DotRows(const WeightRows& w, const std::byte* packed, int64_t rows, float* out,
                      int64_t out_stride, bool accumulate, float* scratch) {
    const Pair* pairs = reinterpret_cast<const Pair*>(packed);
    for (int64_t i = w.first; i < w.end; i += 16) {
      const int count = w.end - i < 16 ? static_cast<int>(w.end - i) : 16;
      int64_t r = 0;
      for (; r + 4 <= rows; r += 4) {
        DotTile<Q, 4>(w, i, count, pairs + r * Pairs(w.cols), out + r * out_stride, out_stride,
                      accumulate);
      }
      for (; r < rows; ++r) {
        DotTile<Q, 1>(w, i, count, pairs + r * Pairs(w.cols), out + r * out_stride, out_stride,
                      accumulate);
      }
    }
  }
};

// The level's choice: fixed point for the types it takes, float32 for the others.
struct MixedDot {
  using Float = FloatDot<VectorAvx512>;

  static int64_t PackedRowBytes(DType dtype, int64_t n) {
    return FixedPointDot::Takes(dtype) ? FixedPointDot::PackedRowBytes(n)
                                       : Float::PackedRowBytes(dtype, n);
  }
  static void PackRow(DType dtype, const float* x, int64_t n, std::byte* packed) {
    if (FixedPointDot::Takes(dtype)) return FixedPointDot::PackRow(x, n, packed);
    Float::PackRow(dtype, x, n, packed);
  }
  static void DotRows(const WeightRows& weights, const std::byte* packed, int64_t rows, float* out,
                      int64_t out_stride, bool accumulate, float* scratch) {
    using Fixed = FixedPointDot;
    const auto run = [&](auto dot) {
      dot(weights, packed, rows, out, out_stride, accumulate, scratch);
    };
    switch (weights.dtype) {
      case DType::kQ4_0:
        return run(Fixed::DotRows<Fixed::Q4_0>);
      case DType::kQ4_1:
        return run(Fixed::DotRows<Fixed::Q4_1>);
      case DType::kQ8_0:
        return run(Fixed::DotRows<Fixed::Q8_0>);
      default:
        return run(Float::DotRows);
    }
  }
};

}  // namespace longhaul
