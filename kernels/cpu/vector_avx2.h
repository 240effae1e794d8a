// Eight float32 lanes in AVX2, FMA and F16C: one of the two vector types that the kernel templates
// are written over. Included only by files compiled for that level.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace longhaul {

struct VectorAvx2 {
  using Register = __m256;
  static constexpr int kLanes = 8;
  // Below this power ScaleByPowerOfTwo does not reach; kScalesToZero: it gives 0 there instead.
  static constexpr float kPowerMin = -126.0f;
  static constexpr bool kScalesToZero = false;

  static Register Zero() { return _mm256_setzero_ps(); }
  static Register Set(float x) { return _mm256_set1_ps(x); }
  static Register Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, Register x) { _mm256_storeu_ps(p, x); }
  static Register Add(Register a, Register b) { return _mm256_add_ps(a, b); }
  static Register Subtract(Register a, Register b) { return _mm256_sub_ps(a, b); }
  static Register Multiply(Register a, Register b) { return _mm256_mul_ps(a, b); }
  static Register Divide(Register a, Register b) { return _mm256_div_ps(a, b); }
  // Of a number and a NaN, Max and Min give b.
  static Register Max(Register a, Register b) { return _mm256_max_ps(a, b); }
  static Register Min(Register a, Register b) { return _mm256_min_ps(a, b); }
  static Register MultiplyAdd(Register a, Register b, Register c) {  // a b + c
    return _mm256_fmadd_ps(a, b, c);
  }
  static Register Round(Register x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // x * 2^n for whole n in [kPowerMin, 127].
  static Register ScaleByPowerOfTwo(Register x, Register n) {
    const __m256i bits =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(x, _mm256_castsi256_ps(bits));
  }
  // value, but 0 in lanes where x < limit.
  static Register ZeroBelow(Register x, float limit, Register value) {
    return _mm256_and_ps(value, _mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_NLT_UQ));
  }
  static bool AnyAbove(Register x, float limit) {
    return _mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_GT_OQ)) != 0;
  }
  static float Sum(Register x) {
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
  }
  // Lane i is the sum of rows[i]'s lanes.
  static Register SumEach(const Register rows[kLanes]) {
    const Register a =
        _mm256_hadd_ps(_mm256_hadd_ps(rows[0], rows[1]), _mm256_hadd_ps(rows[2], rows[3]));
    const Register b =
        _mm256_hadd_ps(_mm256_hadd_ps(rows[4], rows[5]), _mm256_hadd_ps(rows[6], rows[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }
  static float Largest(Register x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
  }
  static Register LoadBf16(const uint16_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  // Rounds to nearest, ties to even. Not for NaN.
  static void StoreBf16(uint16_t* p, Register x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_srli_epi32(
        _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  }
  static Register LoadF16(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static float F16(uint16_t bits) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))); }
  static Register LoadI8(const void* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
  }
  // The low, then the high nibbles of kLanes bytes.
  static void LoadNibbles(const void* p, Register& low, Register& high) {
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p)));
    low = _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15)));
    high = _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes, 4));
  }
};

}  // namespace longhaul
