// bf16 operands for prefill_attention.h: a unit is a pair of neighbours along the sum, multiplied
// by vdpbf16ps with float32 sums. For files compiled with AVX512-BF16.
#pragma once

#include "kernels/cpu/kernel_table.h"
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
  static void PackKey(const uint16_t* key_row, int dim, int key, uint32_t* units) {
    for (int u = 0; u < dim / 2; ++u) {
      __builtin_memcpy(units + u * kPrefillKeyTile + key, key_row + 2 * u, sizeof(uint32_t));
    }
  }
  static void PackValues(const uint16_t* value, const uint16_t* next, int dim, uint32_t* units) {
    for (int d = 0; d < dim; d += 16) {
      const __m512i low =
          _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(value + d)));
      const __m512i high =
          _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(next + d)));
      _mm512_storeu_si512(units + d, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
};

}  // namespace longhaul
