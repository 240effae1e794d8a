// What becomes of a warpgroup's finished sums of the decode products.
#pragma once

#include "kernels/cuda/decode_matmul_sums.cuh"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/gated.cuh"

namespace longhaul::decode_matmul {

// Element (row of W, column) of the tile becomes out[column][row].
template <int kColumns>
class Output {
 public:
  __device__ __forceinline__ Output(const Work& work, const Product& product,
                                    SharedMemory<kColumns>& shared, uint32_t quarter_index)
      : work_(work),
        product_(product),
        shared_(shared),
        group_(quarter_index),
        row_(quarter_index * kWarpgroupRows + thread() / ptx::kWarp * 16 + lane() / 4),
        column_(lane() % 4 * 2) {}

  __device__ __forceinline__ void Store(const Sums<kColumns>& sums) {
    switch (product_.output) {
      case DecodeOutput::kBf16:
        return StoreEach<__nv_bfloat16>(sums);
      case DecodeOutput::kFloat:
        return StoreEach<float>(sums);
      case DecodeOutput::kFloatAccumulate:
        return product_.normed == nullptr ? Accumulate<false>(sums) : Accumulate<true>(sums);
      case DecodeOutput::kGated:
        return StoreGated(sums);
    }
  }

 private:
  static constexpr int kVectors = Sums<kColumns>::kVectors;

  __device__ __forceinline__ static int thread() { return threadIdx.x % ptx::kWarpgroup; }
  __device__ __forceinline__ static int lane() { return threadIdx.x % ptx::kWarp; }
  // Whether the thread's second row of W is one, and the first.
  __device__ __forceinline__ bool low() const { return row_ < product_.n; }
  __device__ __forceinline__ bool high() const { return row_ + 8 < product_.n; }

  __device__ __forceinline__ float2 Pair(const float* from) const {
    return from == nullptr ? make_float2(0.0f, 0.0f)
                           : make_float2(low() ? from[row_] : 0.0f, high() ? from[row_ + 8] : 0.0f);
  }

  // The vector's sums, divided by the rows' root mean squares.
  __device__ __forceinline__ float4 Divided(const Sums<kColumns>& sums, int v) const {
    const float4 value = sums.vector(v);
    if (product_.square_groups == 0) return value;
    const float2 scale = *reinterpret_cast<const float2*>(shared_.inverse_rms + 8 * v + column_);
    return make_float4(value.x * scale.x, value.y * scale.y, value.z * scale.x, value.w * scale.y);
  }

  __device__ __forceinline__ static void Put(float* to, float value) { *to = value; }
  __device__ __forceinline__ static void Put(__nv_bfloat16* to, float value) {
    *to = __float2bfloat16_rn(value);
  }

  template <typename Element>
  __device__ __forceinline__ void StoreEach(const Sums<kColumns>& sums) const {
    const int64_t n = product_.n;
    const float2 bias = Pair(product_.bias);
    Element* out = static_cast<Element*>(product_.out) + column_ * n + row_;
#pragma unroll
    for (int v = 0; v < kVectors; ++v, out += 8 * n) {
      const int columns = work_.rows - 8 * v - column_;
      if (columns <= 0) break;
      const float4 value = Divided(sums, v);
      if (low()) Put(out, value.x + bias.x);
      if (high()) Put(out + 8, value.z + bias.y);
      if (columns == 1) break;
      if (low()) Put(out + n, value.y + bias.x);
      if (high()) Put(out + n + 8, value.w + bias.y);
    }
  }

  // A thread's first row is of gate, its second the same of up.
  __device__ __forceinline__ void StoreGated(const Sums<kColumns>& sums) const {
    static_assert(kGatedRows == 8);
    if (!low()) return;
    const int64_t n = product_.n / 2;
    auto* out =
        static_cast<__nv_bfloat16*>(product_.out) + column_ * n + row_ / 16 * 8 + lane() / 4;
#pragma unroll
    for (int v = 0; v < kVectors; ++v, out += 8 * n) {
      const int columns = work_.rows - 8 * v - column_;
      if (columns <= 0) break;
      const float4 value = Divided(sums, v);
      Put(out, Gated(value.x, value.z));
      if (columns > 1) Put(out + n, Gated(value.y, value.w));
    }
  }

  template <bool kNorm>
  __device__ __forceinline__ void Accumulate(const Sums<kColumns>& sums) const {
    constexpr int kVectorsAtOnce = std::min(kVectors, 4);
    const int64_t n = product_.n;
    const float2 bias = Pair(product_.bias);
    const float2 weight = Pair(kNorm ? product_.norm_weight : nullptr);
    const int64_t first = column_ * n + row_;
    float* out = static_cast<float*>(product_.out) + first;
    __nv_bfloat16* normed = product_.normed + first;
#pragma unroll
    for (int v = 0; v < kVectors; v += kVectorsAtOnce) {
      if (8 * v >= work_.rows) break;
      float4 value[kVectorsAtOnce];
#pragma unroll
      for (int i = 0; i < kVectorsAtOnce; ++i) {
        const int columns = work_.rows - 8 * (v + i) - column_;
        const float* from = out + i * 8 * n;
        value[i].x = low() && columns > 0 ? __ldcg(from) : 0.0f;
        value[i].y = low() && columns > 1 ? __ldcg(from + n) : 0.0f;
        value[i].z = high() && columns > 0 ? __ldcg(from + 8) : 0.0f;
        value[i].w = high() && columns > 1 ? __ldcg(from + n + 8) : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kVectorsAtOnce; ++i, out += 8 * n, normed += 8 * n) {
        const int columns = work_.rows - 8 * (v + i) - column_;
        const float4 sum = Divided(sums, v + i);
        const float4 now =
            make_float4(value[i].x + (sum.x + bias.x), value[i].y + (sum.y + bias.x),
                        value[i].z + (sum.z + bias.y), value[i].w + (sum.w + bias.y));
        if (low() && columns > 0) Put(out, now.x);
        if (low() && columns > 1) Put(out + n, now.y);
        if (high() && columns > 0) Put(out + 8, now.z);
        if (high() && columns > 1) Put(out + n + 8, now.w);
        if constexpr (kNorm) {
          if (low() && columns > 0) Put(normed, now.x * weight.x);
          if (low() && columns > 1) Put(normed + n, now.y * weight.x);
          if (high() && columns > 0) Put(normed + 8, now.z * weight.y);
          if (high() && columns > 1) Put(normed + n + 8, now.w * weight.y);
          SumSquares(v + i, now);
        }
      }
    }
    if constexpr (kNorm) StoreSquares();
  }

  // Leaves a column's sum of squares over the warp's 16 rows. Rows behind n are zeros.
  __device__ __forceinline__ void SumSquares(int v, float4 now) const {
    float first = low() ? now.x * now.x : 0.0f;
    float second = low() ? now.y * now.y : 0.0f;
    if (high()) {
      first += now.z * now.z;
      second += now.w * now.w;
    }
#pragma unroll
    for (int step = 4; step < ptx::kWarp; step *= 2) {
      first += __shfl_xor_sync(0xffffffffu, first, step);
      second += __shfl_xor_sync(0xffffffffu, second, step);
    }
    if (lane() < 4) {
      float* to = shared_.squares[warpgroup()][thread() / ptx::kWarp] + 8 * v + column_;
      *reinterpret_cast<float2*>(to) = make_float2(first, second);
    }
  }
  __device__ __forceinline__ void StoreSquares() const {
    ptx::NamedSync(1 + warpgroup(), ptx::kWarpgroup);
    const auto& squares = shared_.squares[warpgroup()];
    const int groups = product_.cut.tiles * Cut::kQuarters;
    for (int column = thread(); column < work_.rows; column += ptx::kWarpgroup) {
      work_.squares[column * groups + group_] =
          (squares[0][column] + squares[1][column]) + (squares[2][column] + squares[3][column]);
    }
  }
  __device__ __forceinline__ static int warpgroup() { return threadIdx.x / ptx::kWarpgroup; }

  const Work& work_;
  const Product& product_;
  SharedMemory<kColumns>& shared_;
  const uint32_t group_;
  const int row_;     // the thread's first of W
  const int column_;  // its first of a vector
};

}  // namespace longhaul::decode_matmul
