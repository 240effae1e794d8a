// How decode attention's partial results become one: the warps' of a part, the parts' of a span,
// the spans' of a row, always in the order of their keys.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/cuda/decode_attention_shape.cuh"
#include "kernels/cuda/ptx.cuh"

namespace longhaul::decode_attention {

// A head's result over some keys: the largest score (log2), the sum of exponentials relative to it,
// and the values' sum; each lane has its dims.
template <int kHeadDim>
struct Folded {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
  float dims[Shape<kHeadDim>::kLaneDims] = {};
};

__device__ __forceinline__ float WarpMax(float x) {
  for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, i));
  return x;
}
__device__ __forceinline__ float WarpSum(float x) {
  for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffff, x, i);
  return x;
}

template <int kHeadDim>
__device__ __forceinline__ void LoadDims(float (&to)[Shape<kHeadDim>::kLaneDims],
                                         const float* from) {
  if constexpr (kHeadDim == 128) {
    const float4 four = __ldcg(reinterpret_cast<const float4*>(from));
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
  } else {
    const float2 two = __ldcg(reinterpret_cast<const float2*>(from));
    to[0] = two.x, to[1] = two.y;
  }
}

// Folds `count` results of one head in their order, by one warp. Sources are `stride` heads apart;
// global memory, past the first-level cache.
template <int kHeadDim>
__device__ Folded<kHeadDim> FoldParts(const float* weights, const float* sums, int64_t stride,
                                      int count) {
  constexpr int kDims = Shape<kHeadDim>::kLaneDims;
  constexpr int kAtOnce = kDecodeSpanParts;  // loads under way together
  const int lane = threadIdx.x % ptx::kWarp;
  Folded<kHeadDim> folded;
  for (int first = 0; first < count; first += kAtOnce) {
    float dims[kAtOnce][kDims];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i < count) {
        LoadDims<kHeadDim>(dims[i], sums + (first + i) * stride * kHeadDim + lane * kDims);
      }
    }
    float2 weight = {-std::numeric_limits<float>::infinity(), 0.0f};
    if (lane < kAtOnce && first + lane < count) {
      weight = __ldcg(reinterpret_cast<const float2*>(weights) + (first + lane) * stride);
    }
    const float max = fmaxf(folded.max, WarpMax(weight.x));
    const float keep = ptx::Exp2(folded.max - max);
    const float scale = ptx::Exp2(weight.x - max);
    folded.max = max;
    folded.sum = folded.sum * keep + WarpSum(scale * weight.y);
    for (float& dim : folded.dims) dim *= keep;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float part_scale = __shfl_sync(0xffffffff, scale, i);
      if (first + i < count) {
        for (int d = 0; d < kDims; ++d) folded.dims[d] += part_scale * dims[i][d];
      }
    }
  }
  return folded;
}

// By all math threads together.
template <int kHeadDim>
class PartFinisher {
 public:
  __device__ PartFinisher(const Work& work, SharedMemory<kHeadDim>& shared)
      : work_(work),
        shared_(shared),
        warp_(threadIdx.x / ptx::kWarp),
        lane_(threadIdx.x % ptx::kWarp) {}

  // The warps' shares of the part, in shared memory, become the part's result; the last part of a
  // row to be finished, by whichever thread block, brings out the row.
  __device__ void Finish(const Unit& unit, int part) {
    MathSync();
    const int parts = DecodeParts(unit.keys);
    for (int h = warp_; h < unit.heads; h += kWarps) {
      const Folded<kHeadDim> folded = FoldWarps(h);
      if (parts == 1) {
        WriteOut(unit, h, folded);
      } else {
        WritePartial(unit, unit.slot + part, h, folded);
      }
    }
    MathSync();
    if (parts == 1) return;

    const int span = part / kDecodeSpanParts;
    const int span_slot = unit.slot + span * kDecodeSpanParts;
    const int span_parts = min(kDecodeSpanParts, parts - span * kDecodeSpanParts);
    if (!Last(&work_.scratch.span_arrivals[int64_t{span_slot} * work_.sets + unit.set],
              span_parts)) {
      return;
    }
    const int spans = (parts + kDecodeSpanParts - 1) / kDecodeSpanParts;
    for (int h = warp_; h < unit.heads; h += kWarps) {
      const Folded<kHeadDim> folded = FoldSlots(unit, span_slot, h, 1, span_parts);
      if (spans == 1) {
        WriteOut(unit, h, folded);
      } else {
        WritePartial(unit, span_slot, h, folded);
      }
    }
    if (spans == 1) return;
    MathSync();
    if (!Last(&work_.scratch.row_arrivals[int64_t{unit.row} * work_.sets + unit.set], spans))
      return;
    for (int h = warp_; h < unit.heads; h += kWarps) {
      WriteOut(unit, h, FoldSlots(unit, unit.slot, h, kDecodeSpanParts, spans));
    }
  }

 private:
  using S = Shape<kHeadDim>;

  __device__ void MathSync() { ptx::NamedSync(kMathBarrier, kMathThreads); }

  // After MathSync: what the warps wrote before it is seen by those who arrive last.
  __device__ bool Last(uint32_t* counter, int expected) {
    if (threadIdx.x == 0) {
      shared_.arrivals = ArriveAt(counter);
      if (shared_.arrivals == expected - 1) *counter = 0;
    }
    MathSync();
    return shared_.arrivals == expected - 1;
  }

  __device__ Folded<kHeadDim> FoldWarps(int h) {
    Folded<kHeadDim> folded;
    for (int w = 0; w < kWarps; ++w) folded.max = fmaxf(folded.max, shared_.weights[w][h].x);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float2 weight = shared_.weights[w][h];
      const float scale = ptx::Exp2(weight.x - folded.max);
      folded.sum += scale * weight.y;
      const float* sums = shared_.sums[w][h] + lane_ * S::kLaneDims;
      for (int d = 0; d < S::kLaneDims; ++d) folded.dims[d] += scale * sums[d];
    }
    return folded;
  }

  __device__ int64_t SlotHead(const Unit& unit, int slot, int h) {
    return int64_t{slot} * work_.heads + unit.first_head + h;
  }

  __device__ Folded<kHeadDim> FoldSlots(const Unit& unit, int slot, int h, int slot_step,
                                        int count) {
    const int64_t first = SlotHead(unit, slot, h);
    return FoldParts<kHeadDim>(work_.scratch.weights + 2 * first,
                               work_.scratch.sums + first * kHeadDim,
                               int64_t{slot_step} * work_.heads, count);
  }

  __device__ void WritePartial(const Unit& unit, int slot, int h, const Folded<kHeadDim>& folded) {
    const int64_t at = SlotHead(unit, slot, h);
    if (lane_ == 0) {
      reinterpret_cast<float2*>(work_.scratch.weights)[at] = {folded.max, folded.sum};
    }
    float* sums = work_.scratch.sums + at * kHeadDim + lane_ * S::kLaneDims;
    if constexpr (kHeadDim == 128) {
      *reinterpret_cast<float4*>(sums) = {folded.dims[0], folded.dims[1], folded.dims[2],
                                          folded.dims[3]};
    } else {
      *reinterpret_cast<float2*>(sums) = {folded.dims[0], folded.dims[1]};
    }
  }

  __device__ void WriteOut(const Unit& unit, int h, const Folded<kHeadDim>& folded) {
    const float inverse = 1.0f / folded.sum;
    uint16_t* out = work_.out + unit.row * work_.out_stride +
                    int64_t{unit.first_head + h} * kHeadDim + lane_ * S::kLaneDims;
#pragma unroll
    for (int d = 0; d < S::kLaneDims; d += 2) {
      reinterpret_cast<uint32_t*>(out)[d / 2] =
          ptx::PackBf16(folded.dims[d] * inverse, folded.dims[d + 1] * inverse);
    }
  }

  const Work& work_;
  SharedMemory<kHeadDim>& shared_;
  const int warp_;
  const int lane_;
};

}  // namespace longhaul::decode_attention
