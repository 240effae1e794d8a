// Dot products of decode rows with weights of any type in float32: a weight row is dequantised once
// into scratch and multiplied with every activation row. Nothing is rounded but the float32
// arithmetic itself. Over a vector type V, see kernel_table.h.
#pragma once

#include <cstdint>

#include "common/model/dequantize.h"
#include "kernels/cpu/kernel_table.h"

namespace longhaul {

template <typename V>
struct FloatDot {
  using R = typename V::Register;
  static constexpr int kLanes = V::kLanes;
  static constexpr int kBlock = 32;  // elements of the block formats below

  static int64_t PackedRowBytes(DType dtype, int64_t n) { return (n * 4 + 63) / 64 * 64; }

  static void PackRow(DType dtype, const float* x, int64_t n, std::byte* packed) {
    __builtin_memcpy(packed, x, n * sizeof(float));
  }

  static uint16_t Half(const std::byte* p) {
    uint16_t bits;
    __builtin_memcpy(&bits, p, sizeof(bits));
    return bits;
  }

  static void Dequantize(DType dtype, const std::byte* row, int64_t n, float* out) {
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(row);
    switch (dtype) {
      case DType::kF32:
        __builtin_memcpy(out, row, n * sizeof(float));
        return;
      case DType::kF16:
      case DType::kBF16: {
        const bool f16 = dtype == DType::kF16;
        const int64_t whole = n / kLanes * kLanes;
        for (int64_t i = 0; i < whole; i += kLanes) {
          V::Store(out + i, f16 ? V::LoadF16(halves + i) : V::LoadBf16(halves + i));
        }
        if (whole < n) DequantizeRow(dtype, row + whole * 2, n - whole, out + whole);
        return;
      }
      case DType::kQ8_0:
        for (int64_t i = 0; i < n; i += kBlock, row += 34) {
          const R d = V::Set(V::F16(Half(row)));
          for (int j = 0; j < kBlock; j += kLanes) {
            V::Store(out + i + j, V::Multiply(d, V::LoadI8(row + 2 + j)));
          }
        }
        return;
      case DType::kQ4_0:
      case DType::kQ4_1: {
        const bool has_minimum = dtype == DType::kQ4_1;
        const int header = has_minimum ? 4 : 2;
        for (int64_t i = 0; i < n; i += kBlock, row += header + 16) {
          const float d = V::F16(Half(row));
          const R scale = V::Set(d);
          const R minimum = V::Set(has_minimum ? V::F16(Half(row + 2)) : -8.0f * d);
          for (int j = 0; j < 16; j += kLanes) {
            R low;
            R high;
            V::LoadNibbles(row + header + j, low, high);
            V::Store(out + i + j, V::MultiplyAdd(scale, low, minimum));
            V::Store(out + i + 16 + j, V::MultiplyAdd(scale, high, minimum));
          }
        }
        return;
      }
      default:
        DequantizeRow(dtype, row, n, out);
    }
  }

  static float Dot(const float* a, const float* b, int64_t n) {
    R s0 = V::Zero();
    R s1 = V::Zero();
    R s2 = V::Zero();
    R s3 = V::Zero();
    int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
      s0 = V::MultiplyAdd(V::Load(a + i), V::Load(b + i), s0);
      s1 = V::MultiplyAdd(V::Load(a + i + kLanes), V::Load(b + i + kLanes), s1);
      s2 = V::MultiplyAdd(V::Load(a + i + 2 * kLanes), V::Load(b + i + 2 * kLanes), s2);
      s3 = V::MultiplyAdd(V::Load(a + i + 3 * kLanes), V::Load(b + i + 3 * kLanes), s3);
    }
    for (; i + kLanes <= n; i += kLanes) s0 = V::MultiplyAdd(V::Load(a + i), V::Load(b + i), s0);
    float sum = V::Sum(V::Add(V::Add(s0, s1), V::Add(s2, s3)));
    for (; i < n; ++i) sum += a[i] * b[i];
    return sum;
  }

  static void DotRows(const WeightRows& weights, const std::byte* packed, int64_t rows, float* out,
                      int64_t out_stride, bool accumulate, float* scratch) {
    const int64_t packed_bytes = PackedRowBytes(weights.dtype, weights.cols);
    for (int64_t w = weights.first; w < weights.end; ++w) {
      Dequantize(weights.dtype, weights.data + w * weights.row_bytes, weights.cols, scratch);
      for (int64_t r = 0; r < rows; ++r) {
        const float* x = reinterpret_cast<const float*>(packed + r * packed_bytes);
        float* y = out + r * out_stride + w;
        const float dot = Dot(scratch, x, weights.cols);
        *y = accumulate ? *y + dot : dot;
      }
    }
  }
};

}  // namespace longhaul
