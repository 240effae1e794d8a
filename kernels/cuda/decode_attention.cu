#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/decode_attention_feeder.cuh"
#include "kernels/cuda/decode_attention_fold.cuh"
#include "kernels/cuda/decode_attention_multiplier.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"

namespace longhaul {
namespace {

using decode_attention::Feeder;
using decode_attention::Finisher;
using decode_attention::kFeeder;
using decode_attention::kFinishers;
using decode_attention::kFinisherWarps;
using decode_attention::kFirstFinisher;
using decode_attention::kHeadsMax;
using decode_attention::kSlotBytes;
using decode_attention::kSlots;
using decode_attention::kThreads;
using decode_attention::kUnitsAhead;
using decode_attention::kWarps;
using decode_attention::Multiplier;
using decode_attention::SharedMemory;
using decode_attention::Work;

constexpr float kLog2E = 1.44269504f;

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1)
    DecodeAttentionKernel(const __grid_constant__ CUtensorMap kv,
                          const __grid_constant__ Work work) {
  extern __shared__ __align__(ptx::kSwizzleAtomBytes) std::byte memory[];
  auto& shared = *reinterpret_cast<SharedMemory<kHeadDim>*>(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSlots; ++i) {
      ptx::BarrierInit(&shared.slot_full[i], 1);
      ptx::BarrierInit(&shared.slot_empty[i], kWarps);
    }
    for (int i = 0; i < kUnitsAhead; ++i) {
      ptx::BarrierInit(&shared.unit_full[i], 1);
      ptx::BarrierInit(&shared.unit_empty[i], kWarps * ptx::kWarp);
    }
    for (uint64_t& barrier : shared.part_full) ptx::BarrierInit(&barrier, kWarps);
    ptx::BarrierInit(&shared.part_empty, kFinisherWarps);
    ptx::FenceBarrierInit();
  }
  __syncthreads();
  // The same in all lanes, and the compiler should know.
  const int warp = __shfl_sync(0xffffffff, threadIdx.x / ptx::kWarp, 0);
  if (warp < kFirstFinisher) {
    Multiplier<kHeadDim>(work, shared).Run();
  } else if (warp < kFeeder) {
    Finisher<kHeadDim>(work, shared, warp - kFirstFinisher).Run();
  } else {
    Feeder<kHeadDim>(kv, work, shared).Run();
  }
}

template <int kHeadDim>
void Launch(const DecodeAttentionParams& params, const Work& work, cudaStream_t stream) {
  constexpr size_t kBytes = sizeof(SharedMemory<kHeadDim>);
  static OncePerDevice configured;
  configured.Run([] {
    CudaCheck(cudaFuncSetAttribute(DecodeAttentionKernel<kHeadDim>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
              "shared memory of decode attention");
  });
  LaunchOverlapping(stream, params.processors, kThreads, kBytes, "decode attention",
                    DecodeAttentionKernel<kHeadDim>, params.kv, work);
}

int CopyTokens(const KvLayout& layout) {
  return std::gcd(layout.block_tokens, kSlotBytes / (layout.head_dim * 2));
}

int64_t LayerRows(const KvLayout& layout, int64_t blocks) {
  return blocks * 2 * layout.kv_heads * layout.block_tokens;
}

}  // namespace

DecodeScratchLayout::DecodeScratchLayout(int64_t rows, int64_t slots, int heads, int head_dim) {
  constexpr int64_t kQueueBytes = 16;
  row_arrivals_ = kQueueBytes;
  span_arrivals_ = row_arrivals_ + rows * heads * 4;
  counter_bytes_ = (span_arrivals_ + slots * heads * 4 + 15) / 16 * 16;
  sums_ = (counter_bytes_ + slots * heads * 8 + 15) / 16 * 16;
  bytes_ = sums_ + slots * heads * head_dim * 4;
}

DecodeScratch DecodeScratchLayout::At(std::byte* base) const {
  DecodeScratch scratch;
  scratch.queue = reinterpret_cast<uint32_t*>(base);
  scratch.row_arrivals = reinterpret_cast<uint32_t*>(base + row_arrivals_);
  scratch.span_arrivals = reinterpret_cast<uint32_t*>(base + span_arrivals_);
  scratch.weights = reinterpret_cast<float*>(base + counter_bytes_);
  scratch.sums = reinterpret_cast<float*>(base + sums_);
  return scratch;
}

// Heads of keys and of values, their tokens and dims, for all blocks and layers, are rows of one
// matrix; its two halves of 64 columns are the third dimension.
CUtensorMap MakeDecodeKvMap(const void* pool, const KvLayout& layout, int64_t blocks) {
  const int64_t rows = layout.layers * LayerRows(layout, blocks);
  LH_CHECK(rows <= std::numeric_limits<int32_t>::max(), "rows of the pool are counted in 31 bits");
  const uint64_t halves = layout.head_dim / 64;
  return MakeTensorMap(
      pool, {64, static_cast<uint64_t>(rows), halves},
      {static_cast<uint64_t>(layout.head_dim) * 2, ptx::kSwizzleRowBytes},
      {64, static_cast<uint32_t>(CopyTokens(layout)), static_cast<uint32_t>(halves)});
}

void LaunchDecodeAttention(const DecodeAttentionParams& params, cudaStream_t stream) {
  const KvLayout& layout = params.layout;
  Work work = {};
  work.qkv = static_cast<const std::byte*>(params.qkv);
  work.qkv_stride = params.qkv_stride;
  work.out = static_cast<uint16_t*>(params.out);
  work.out_stride = params.out_stride;
  work.block_tables = params.block_tables;
  work.items = params.items;
  work.item_count = params.item_count;
  work.scratch = params.scratch;
  work.heads = params.heads;
  work.kv_heads = layout.kv_heads;
  work.group = params.heads / layout.kv_heads;
  work.group_sets = (work.group + kHeadsMax - 1) / kHeadsMax;
  work.sets = layout.kv_heads * work.group_sets;
  work.block_tokens = layout.block_tokens;
  work.copy_tokens = CopyTokens(layout);
  work.layer_row = static_cast<int>(params.layer * LayerRows(layout, params.pool_blocks));
  work.scale_log2 = kLog2E / std::sqrt(static_cast<float>(layout.head_dim));
  switch (layout.head_dim) {
    case 64:
      return Launch<64>(params, work, stream);
    case 128:
      return Launch<128>(params, work, stream);
    default:
      LH_CHECK(false, "decode attention takes heads of 64 or 128");
  }
}

}  // namespace longhaul
