// Attention of decode rows, one query token each, over paged KV in bf16: softmax and sums in
// float32. The memory's bandwidth is the limit: every key and value is read once, by the copy
// engine, and all query heads of a kv head use it together.
//
// Dao et al., "Flash-Decoding for long-context inference", 2023 (keys split over processors);
// Ainslie et al., "GQA", 2023; Milakov & Gimelshein, "Online normalizer calculation for softmax",
// 2018. Who computes what: decode_schedule.h.
//
// A row's result depends on its own length, queries and KV alone, bit for bit, never on the batch
// or on the schedule.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "common/model/kv_layout.h"
#include "kernels/cuda/decode_schedule.h"

namespace longhaul {

// The kernel's memory of its own, shared by all layers: one launch after the other uses it. Device
// memory. Counters are zero before a launch and after it.
struct DecodeScratch {
  uint32_t* queue = nullptr;          // [2]
  uint32_t* row_arrivals = nullptr;   // [rows][heads]
  uint32_t* span_arrivals = nullptr;  // [slots][heads]
  float* weights = nullptr;           // [slots][heads][2]: largest score, sum of exponentials
  float* sums = nullptr;              // [slots][heads][head_dim]
};

// How a DecodeScratch lies in one piece of memory, for steps of at most `rows` rows and `slots`
// partial results.
class DecodeScratchLayout {
 public:
  DecodeScratchLayout(int64_t rows, int64_t slots, int heads, int head_dim);
  int64_t bytes() const { return bytes_; }
  int64_t counter_bytes() const { return counter_bytes_; }
  // `base`: bytes() of device memory, 16-byte aligned, the first counter_bytes() zeroed by the
  // caller, once.
  DecodeScratch At(std::byte* base) const;

 private:
  int64_t row_arrivals_ = 0;  // offsets in bytes
  int64_t span_arrivals_ = 0;
  int64_t counter_bytes_ = 0;
  int64_t sums_ = 0;
  int64_t bytes_ = 0;
};

// The pool as the copy engine sees it; for all layers. `pool` is device memory, 16-byte aligned.
CUtensorMap MakeDecodeKvMap(const void* pool, const KvLayout& layout, int64_t blocks);

struct DecodeAttentionParams {
  CUtensorMap kv;           // MakeDecodeKvMap
  KvLayout layout;          // head_dim 64 or 128, block_tokens a multiple of 16, bf16
  int64_t pool_blocks = 0;  // blocks of a layer
  int layer = 0;
  int heads = 0;              // query heads, a multiple of layout.kv_heads
  const void* qkv = nullptr;  // bf16 [rows, qkv_stride], the query heads first, already rotated
  int64_t qkv_stride = 0;     // elements, a multiple of 8
  void* out = nullptr;     // bf16 [rows, out_stride], of which [rows, heads * head_dim] is written
  int64_t out_stride = 0;  // elements, a multiple of 4

  // What changes from step to step lies in device memory at fixed addresses, so that a graph can be
  // replayed: block ids of all rows, one table after the other; the schedule's items and their
  // number.
  const int32_t* block_tables = nullptr;
  const DecodeItem* items = nullptr;
  const int32_t* item_count = nullptr;

  DecodeScratch scratch;
  int processors = 0;  // of the device; the grid's size, whatever the batch
};

// Queues the kernel. Programmatic dependent launch: it may start before the kernel ahead of it in
// the stream has ended, and then reads block tables, items and the rows' settled KV. So those must
// be older than that kernel, which in turn must itself have waited for what came before it. Device
// thread; the shapes are the caller's to check.
void LaunchDecodeAttention(const DecodeAttentionParams& params, cudaStream_t stream);

}  // namespace longhaul
