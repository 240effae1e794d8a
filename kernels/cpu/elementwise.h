// Norm, activation, rotation and conversions over a vector type V, see kernel_table.h.
#pragma once

#include <cstdint>

namespace longhaul {

template <typename V>
struct Elementwise {
  using R = typename V::Register;
  static constexpr int kLanes = V::kLanes;

  // e^x within 2 units in the last place, for x <= 88; exactly 0 below -87; NaN stays NaN. 2^n e^r
  // with |r| <= ln2 / 2, e^r by its Taylor polynomial.
  static R Exp(R argument) {
    const R x = V::Max(V::Set(-87.0f), argument);
    const R n = V::Round(V::Multiply(x, V::Set(1.44269504f)));
    R r = V::MultiplyAdd(n, V::Set(-0.693359375f), x);
    r = V::MultiplyAdd(n, V::Set(2.12194440e-4f), r);
    R p = V::Set(1.0f / 720.0f);
    p = V::MultiplyAdd(p, r, V::Set(1.0f / 120.0f));
    p = V::MultiplyAdd(p, r, V::Set(1.0f / 24.0f));
    p = V::MultiplyAdd(p, r, V::Set(1.0f / 6.0f));
    p = V::MultiplyAdd(p, r, V::Set(0.5f));
    p = V::MultiplyAdd(p, r, V::Set(1.0f));
    p = V::MultiplyAdd(p, r, V::Set(1.0f));
    return V::ZeroBelow(argument, -87.0f, V::ScaleByPowerOfTwo(p, n));
  }

  // 2^x within 4 units in the last place, for x <= 127; exactly 0 for x <= -150 and for -inf; NaN
  // stays NaN. The polynomial is 2^r's Taylor series for |r| <= 1/2, to degree 6.
  static R Exp2(R argument) {
    const R x = V::Max(V::Set(V::kPowerMin), argument);
    const R n = V::Round(x);
    const R r = V::Subtract(x, n);
    R p = V::Set(1.5403530e-4f);
    p = V::MultiplyAdd(p, r, V::Set(1.3333558e-3f));
    p = V::MultiplyAdd(p, r, V::Set(9.6181291e-3f));
    p = V::MultiplyAdd(p, r, V::Set(5.5504109e-2f));
    p = V::MultiplyAdd(p, r, V::Set(2.4022651e-1f));
    p = V::MultiplyAdd(p, r, V::Set(6.9314718e-1f));
    p = V::MultiplyAdd(p, r, V::Set(1.0f));
    const R power = V::ScaleByPowerOfTwo(p, n);
    return V::kScalesToZero ? power : V::ZeroBelow(argument, V::kPowerMin, power);
  }

  static void RmsNorm(float* out, const float* x, const float* weight, int64_t width,
                      float epsilon) {
    R squares = V::Zero();
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) {
      const R v = V::Load(x + i);
      squares = V::MultiplyAdd(v, v, squares);
    }
    float sum = V::Sum(squares);
    for (; i < width; ++i) sum += x[i] * x[i];
    const float scale = 1.0f / __builtin_sqrtf(sum / static_cast<float>(width) + epsilon);
    for (i = 0; i + kLanes <= width; i += kLanes) {
      V::Store(out + i,
               V::Multiply(V::Multiply(V::Load(x + i), V::Set(scale)), V::Load(weight + i)));
    }
    for (; i < width; ++i) out[i] = x[i] * scale * weight[i];
  }

  static R Gate(R gate, R up) {
    const R one = V::Set(1.0f);
    // Below -87 silu is 0 to float32's precision of everything it is added to.
    const R negated = V::Min(V::Set(87.0f), V::Subtract(V::Zero(), gate));
    return V::Multiply(V::Divide(gate, V::Add(one, Exp(negated))), up);
  }

  static void Gated(float* out, const float* gate, const float* up, int64_t n) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      V::Store(out + i, Gate(V::Load(gate + i), V::Load(up + i)));
    }
    if (i == n) return;
    float g[kLanes] = {};
    float u[kLanes] = {};
    for (int64_t j = i; j < n; ++j) {
      g[j - i] = gate[j];
      u[j - i] = up[j];
    }
    V::Store(g, Gate(V::Load(g), V::Load(u)));
    for (int64_t j = i; j < n; ++j) out[j] = g[j - i];
  }

  static void Add(float* out, const float* x, int64_t n) {
    for (int64_t i = 0; i < n; ++i) out[i] += x[i];
  }

  static void Rotate(float* head, const float* cosines, const float* sines, int pairs,
                     bool interleaved) {
    if (interleaved) {
      for (int i = 0; i < pairs; ++i) {
        const float a = head[2 * i];
        const float b = head[2 * i + 1];
        head[2 * i] = a * cosines[i] - b * sines[i];
        head[2 * i + 1] = a * sines[i] + b * cosines[i];
      }
      return;
    }
    for (int i = 0; i < pairs; ++i) {
      const float a = head[i];
      const float b = head[i + pairs];
      head[i] = a * cosines[i] - b * sines[i];
      head[i + pairs] = a * sines[i] + b * cosines[i];
    }
  }

  static void RoundToBf16(uint16_t* out, const float* x, int64_t n) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) V::StoreBf16(out + i, V::Load(x + i));
    if (i == n) return;
    float tail[kLanes] = {};
    uint16_t rounded[kLanes];
    for (int64_t j = i; j < n; ++j) tail[j - i] = x[j];
    V::StoreBf16(rounded, V::Load(tail));
    for (int64_t j = i; j < n; ++j) out[j] = rounded[j - i];
  }
};

}  // namespace longhaul
