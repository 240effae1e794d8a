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

// A warp that finishes parts: it has every kFinisherWarps-th head of its group's parts.
template <int kHeadDim>
class Finisher {
 public:
  // `warp`: of those that finish.
  __device__ Finisher(const Work& work, SharedMemory<kHeadDim>& shared, int warp)
      : work_(work),
        shared_(shared),
        group_(warp / kFinisherWarps),
        first_(warp % kFinisherWarps),
        lane_(threadIdx.x % ptx::kWarp) {}

  __device__ void Run() {
    ptx::WaitForEarlierKernels();
    for (uint32_t parity = 0;; parity ^= 1) {
      ptx::BarrierWait(&shared_.part_full[group_], parity);
      const Unit unit = shared_.part_unit;
      const int part = shared_.part;
      Folded<kHeadDim> folded[kOwnHeads];
      for (int i = 0; i < kOwnHeads; ++i) {
        if (first_ + i * kFinisherWarps < unit.heads)
          folded[i] = FoldWarps(first_ + i * kFinisherWarps);
      }
      __syncwarp();
      if (lane_ == 0) ptx::BarrierArrive(&shared_.part_empty);
      if (unit.heads == 0) return;
      Finish(unit, part, folded);
    }
  }

 private:
  using S = Shape<kHeadDim>;
  static constexpr int kOwnHeads = kHeadsMax / kFinisherWarps;

  // The last part of a row to be finished, by whichever thread block, brings out the row.
  __device__ void Finish(const Unit& unit, int part, const Folded<kHeadDim> (&folded)[kOwnHeads]) {
    const int parts = DecodeParts(unit.keys);
    for (int i = 0; i < kOwnHeads; ++i) {
      const int h = first_ + i * kFinisherWarps;
      if (h >= unit.heads) continue;
      if (parts == 1) {
        WriteOut(unit, h, folded[i]);
      } else {
        WritePartial(unit, unit.slot + part, h, folded[i]);
      }
    }
    if (parts == 1) return;

    const int span = part / kDecodeSpanParts;
    const int span_slot = unit.slot + span * kDecodeSpanParts;
    const int span_parts = min(kDecodeSpanParts, parts - span * kDecodeSpanParts);
    const uint32_t last = Last(work_.scratch.span_arrivals, unit, span_slot, span_parts);
    if (last == 0) return;
    const int spans = (parts + kDecodeSpanParts - 1) / kDecodeSpanParts;
    for (int h = first_; h < unit.heads; h += kFinisherWarps) {
      if ((last >> h & 1) == 0) continue;
      const Folded<kHeadDim> span_folded = FoldSlots(unit, span_slot, h, 1, span_parts);
      if (spans == 1) {
        WriteOut(unit, h, span_folded);
      } else {
        WritePartial(unit, span_slot, h, span_folded);
      }
    }
    if (spans == 1) return;
    const uint32_t row_last = Last(work_.scratch.row_arrivals, unit, unit.row, spans, last);
    for (int h = first_; h < unit.heads; h += kFinisherWarps) {
      if ((row_last >> h & 1) == 0) continue;
      WriteOut(unit, h, FoldSlots(unit, unit.slot, h, kDecodeSpanParts, spans));
    }
  }

  // Arrives at the counters [index][head] of this warp's heads, of those in `heads`: which of them
  // are complete now, that is, were arrived at `expected` times. What the warp wrote before is seen
  // by who arrives last. One bit a head of the unit.
  __device__ uint32_t Last(uint32_t* counters, const Unit& unit, int index, int expected,
                           uint32_t heads = 0xffffffff) {
    __syncwarp();
    bool last = false;
    const bool own =
        lane_ < unit.heads && lane_ % kFinisherWarps == first_ && (heads >> lane_ & 1) != 0;
    if (own) {
      uint32_t* counter = counters + SlotHead(unit, index, lane_);
      last = ptx::AddAcquireRelease(counter, 1) == static_cast<uint32_t>(expected - 1);
      if (last) *counter = 0;
    }
    return __ballot_sync(0xffffffff, last);
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
  const int group_;
  const int first_;
  const int lane_;
};

}  // namespace longhaul::decode_attention
