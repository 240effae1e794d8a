// Sixteen float32 lanes in AVX-512 (F, BW, DQ, VL): the other vector type that the kernel templates
// are written over, see vector_avx2.h. Included only by files compiled for that level or above.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace longhaul {

struct VectorAvx512 {
  using Register = __m512;
  static constexpr int kLanes = 16;

  static Register Zero() { return _mm512_setzero_ps(); }
  static Register Set(float x) { return _mm512_set1_ps(x); }
  static Register Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, Register x) { _mm512_storeu_ps(p, x); }
  static Register Add(Register a, Register b) { return _mm512_add_ps(a, b); }
  static Register Subtract(Register a, Register b) { return _mm512_sub_ps(a, b); }
  static Register Multiply(Register a, Register b) { return _mm512_mul_ps(a, b); }
  static Register Divide(Register a, Register b) { return _mm512_div_ps(a, b); }
  static Register Max(Register a, Register b) { return _mm512_max_ps(a, b); }
  static Register Min(Register a, Register b) { return _mm512_min_ps(a, b); }
  static Register MultiplyAdd(Register a, Register b, Register c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  static Register Round(Register x) { return _mm512_roundscale_ps(x, 0); }
  static Register ScaleByPowerOfTwo(Register x, Register n) { return _mm512_scalef_ps(x, n); }
  static Register ZeroBelow(Register x, float limit, Register value) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_NLT_UQ), value);
  }
  static float Sum(Register x) { return _mm512_reduce_add_ps(x); }
  static float Largest(Register x) { return _mm512_reduce_max_ps(x); }
  static Register LoadBf16(const uint16_t* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static void StoreBf16(uint16_t* p, Register x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
  }
  static Register LoadF16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static float F16(uint16_t bits) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))); }
  static Register LoadI8(const void* p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
  }
  static void LoadNibbles(const void* p, Register& low, Register& high) {
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
    low = _mm512_cvtepi32_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(15)));
    high = _mm512_cvtepi32_ps(_mm512_srli_epi32(bytes, 4));
  }
};

}  // namespace longhaul
