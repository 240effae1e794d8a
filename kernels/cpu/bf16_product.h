// bf16 operands for prefill_attention.h: a unit is a pair of neighbours along the sum, multiplied
// by vdpbf16ps with float32 sums. For files compiled with AVX512-BF16.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/prefill_attention.h"
#include "kernels/cpu/vector_avx512.h"

namespace longhaul {

// A type of its own, so that templates compiled with these flags are never taken for AVX-512's.
struct VectorAvx512Bf16 : VectorAvx512 {};

struct Bf16Product {
  using Vector = VectorAvx512Bf16;
  using R = __m512;
  static constexpr int kElements = 2;
  static constexpr int kRows = 6;

  static R MultiplyAdd(uint32_t a, const uint32_t* b, R sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(a)),
                            reinterpret_cast<__m512bh>(_mm512_loadu_si512(b)));
  }
  static void PackFloats(const float* x, int n, uint32_t* units) {
    for (int i = 0; i < n; i += 16) {
      const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(units + i / 2),
                          reinterpret_cast<__m256i>(rounded));
    }
  }
  static void PackLanes(R x, uint32_t* units) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(units),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
  }
  // Sixteen units of sixteen keys at a time: a 16x16 transpose of 32-bit elements.
  static void PackKeys(const uint16_t* const* keys, int dim, int first, uint32_t* units) {
    for (int u = 0; u < dim / 2; u += 16) {
      const int left = dim / 2 - u;
      const __mmask16 mask = left >= 16 ? 0xffff : static_cast<__mmask16>((1 << left) - 1);
      __m512i rows[16];
      for (int i = 0; i < 16; ++i) rows[i] = _mm512_maskz_loadu_epi32(mask, keys[i] + 2 * u);
      Transpose(rows);
      for (int i = 0; i < (left < 16 ? left : 16); ++i) {
        _mm512_storeu_si512(units + (u + i) * kPrefillKeyTile + first, rows[i]);
      }
    }
  }
  static void Transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    // r[4q + c]: column 4l + c of rows 4q .. 4q+3 in 128-bit lane l.
    for (int q = 0; q < 4; ++q) {
      r[4 * q] = _mm512_unpacklo_epi64(t[4 * q], t[4 * q + 2]);
      r[4 * q + 1] = _mm512_unpackhi_epi64(t[4 * q], t[4 * q + 2]);
      r[4 * q + 2] = _mm512_unpacklo_epi64(t[4 * q + 1], t[4 * q + 3]);
      r[4 * q + 3] = _mm512_unpackhi_epi64(t[4 * q + 1], t[4 * q + 3]);
    }
    for (int c = 0; c < 4; ++c) {
      const __m512i even01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
      const __m512i even23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
      const __m512i odd01 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
      const __m512i odd23 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
      t[c] = _mm512_shuffle_i32x4(even01, even23, 0x88);
      t[4 + c] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
      t[8 + c] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
      t[12 + c] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
    }
    for (int i = 0; i < 16; ++i) r[i] = t[i];
  }
  static void PackValues(const uint16_t* const* values, int dim, uint32_t* units) {
    for (int d = 0; d < dim; d += 16) {
      const __m512i low = _mm512_cvtepu16_epi32(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values[0] + d)));
      const __m512i high = _mm512_cvtepu16_epi32(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values[1] + d)));
      _mm512_storeu_si512(units + d, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
};

}  // namespace longhaul
