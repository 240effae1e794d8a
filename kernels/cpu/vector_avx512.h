// Sixteen float32 lanes in AVX-512 (F, BW, DQ, VL): the other vector type that the kernel templates
// are written over, see vector_avx2.h. Included only by files compiled for that level or above.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace longhaul {

struct VectorAvx512 {
  using Register = __m512;
  static constexpr int kLanes = 16;
  static constexpr float kPowerMin = -200.0f;
  static constexpr bool kScalesToZero = true;

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
  static bool AnyAbove(Register x, float limit) {
    return _mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
  }
  static float Sum(Register x) { return _mm512_reduce_add_ps(x); }
  static Register SumEach(const Register rows[kLanes]) {
    Register quads[4];  // of four rows each: every 128-bit lane's sums, one row after the other
    for (int i = 0; i < 4; ++i) {
      const Register* r = rows + 4 * i;
      const __m512d ab = _mm512_castps_pd(
          _mm512_add_ps(_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1])));
      const __m512d cd = _mm512_castps_pd(
          _mm512_add_ps(_mm512_unpacklo_ps(r[2], r[3]), _mm512_unpackhi_ps(r[2], r[3])));
      quads[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                               _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
    }
    const auto add_lanes = [](Register a, Register b) {
      return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    return add_lanes(add_lanes(quads[0], quads[1]), add_lanes(quads[2], quads[3]));
  }
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
