// Causal attention of prefill rows over the paged KV pool, on the matrix unit: many rows of few
// sequences, each attending to all positions before it, of this chunk and of earlier ones. bf16
// operands, float32 sums and softmax.
//
// Online softmax over tiles of keys: Milakov & Gimelshein, "Online normalizer calculation for
// softmax", 2018; Dao, "FlashAttention-2", 2023. Two consumer warpgroups that take turns on the
// matrix unit, so that one's exponentials run under the other's products, a producer warp that
// feeds them, and products of the next tile under the softmax of this one: Shah et al.,
// "FlashAttention-3", 2024.
//
// A row's result depends on its own position, query and keys alone: keys are taken in tiles that
// begin at multiples of kKeyTile positions, in order, and rows of a tile do not touch each other.
// So it has the same bits however a prompt is cut into chunks and whatever else is in the batch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "common/model/backend.h"

namespace longhaul {

// The unit of work: up to kRowTile neighbouring rows of one sequence, for each head in turn.
struct PrefillAttentionItem {
  static constexpr int kRowTile = 128;

  int32_t row = 0;       // its first row in the batch
  int32_t rows = 0;      // 1 to kRowTile
  int32_t position = 0;  // of its first row
  int32_t table = 0;     // where its sequence's block ids begin in the step's block tables
};

// What a step's kPrefill sequences ask of every layer.
struct PrefillAttentionPlan {
  // Those with most keys first: started last they would be waited for.
  std::vector<PrefillAttentionItem> items;
  int64_t keys = 0;  // of all its sequences together
};

// `tables[i]` is where sequence i's block ids begin. Pure; any thread.
PrefillAttentionPlan PlanPrefillAttention(const Batch& batch, absl::Span<const int32_t> tables);

struct PrefillAttentionCall {
  const void* qkv = nullptr;  // [rows, width] bf16; heads of queries first
  int64_t rows = 0;
  int64_t width = 0;
  int heads = 0;
  KvPool pool;
  int layer = 0;
  int64_t keys = 0;     // PrefillAttentionPlan's
  void* out = nullptr;  // [rows, heads * head_dim] bf16
  // In device memory:
  const PrefillAttentionItem* items = nullptr;  // [item_count]
  int32_t item_count = 0;
  const int32_t* block_tables = nullptr;
};

// Queues the kernel. head_dim 64 or 128, block_tokens a multiple of 16, width a multiple of 8.
// Device thread.
void LaunchPrefillAttention(const PrefillAttentionCall& call, cudaStream_t stream);

}  // namespace longhaul
