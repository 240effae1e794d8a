// A decode step's world on the GPU for tests and benchmarks of decode attention: a pool of random
// KV, shuffled block tables, queries, schedule and scratch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/decode_attention.h"
#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/cuda/hashed_bf16.cuh"

namespace longhaul {

// Deviations of about one for keys and values, more for queries: scores that differ.
constexpr float kKvScale = 1.75f;
constexpr float kQueryScale = 2.5f;

static __global__ void FillRandomKernel(__nv_bfloat16* to, int64_t count, uint64_t seed,
                                        float scale) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    to[i] = __float2bfloat16(scale * HashedValue(seed, i));
  }
}

// Random keys and values of one sequence's positions [0, keys) in one layer; everything else of the
// pool stays as it is.
static __global__ void FillKvKernel(__nv_bfloat16* layer, KvLayout layout, int64_t slab_elements,
                                    const int32_t* table, int keys, uint64_t seed) {
  const int64_t key_elements = int64_t{2} * layout.kv_heads * layout.head_dim;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < keys * key_elements;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t key = i / key_elements;
    const int64_t head = i % key_elements / layout.head_dim;  // of keys, then of values
    const int64_t slab = table[key / layout.block_tokens] * slab_elements;
    layer[slab + (head * layout.block_tokens + key % layout.block_tokens) * layout.head_dim +
          i % layout.head_dim] = __float2bfloat16(kKvScale * HashedValue(seed, i));
  }
}

struct DecodeWorldOptions {
  KvLayout layout;
  int heads = 0;
  std::vector<int32_t> keys;  // [rows]
  int layer = 0;              // the one that holds the rows' KV
  int64_t pool_blocks = 0;    // 0: as many as are needed and a few
  int64_t first_block = 0;    // the rows' blocks are from here on
  uint64_t seed = 1;
  bool all_layers = false;  // random KV everywhere instead of NaN where no row's KV is
};

class DecodeWorld {
 public:
  explicit DecodeWorld(DecodeWorldOptions options)
      : options_(Sized(std::move(options))),
        rows_(static_cast<int>(options_.keys.size())),
        pool(options_.layout.layers * options_.pool_blocks * options_.layout.slab_elements()),
        qkv(rows_ * qkv_stride()),
        out(rows_ * out_stride()),
        tables(MakeTables()),
        items(DecodeItemsMax(
            rows_, std::accumulate(options_.keys.begin(), options_.keys.end(), int64_t{0}))),
        item_count(1),
        scratch_layout(rows_, items.size(), options_.heads, options_.layout.head_dim),
        scratch(scratch_layout.bytes()) {
    const KvLayout& layout = options_.layout;
    __nv_bfloat16* layer =
        pool.data() + options_.layer * options_.pool_blocks * layout.slab_elements();
    if (options_.all_layers) {
      FillRandomKernel<<<2048, 256>>>(pool.data(), pool.size(), options_.seed, kKvScale);
    } else {
      for (int row = 0; row < rows_; ++row) {
        if (options_.keys[row] == 0) continue;
        FillKvKernel<<<512, 256>>>(layer, layout, layout.slab_elements(),
                                   tables.data() + plan_rows[row].table, options_.keys[row],
                                   options_.seed + 1000 + row);
      }
    }
    FillRandomKernel<<<512, 256>>>(qkv.data(), qkv.size(), options_.seed + 7, kQueryScale);
    CudaCheckLaunch("random inputs");
    CudaCheck(cudaMemset(scratch.data(), 0, scratch_layout.counter_bytes()), "counters");
    DecodeSchedule schedule;
    PlanDecode(plan_rows, &schedule);
    SetSchedule(schedule);
  }

  int rows() const { return rows_; }
  const DecodeWorldOptions& options() const { return options_; }
  int64_t qkv_stride() const {
    return int64_t{options_.heads + 2 * options_.layout.kv_heads} * options_.layout.head_dim;
  }
  int64_t out_stride() const { return int64_t{options_.heads} * options_.layout.head_dim; }

  void SetSchedule(const DecodeSchedule& schedule) {
    items.Write(schedule.items);
    item_count.Write({static_cast<int32_t>(schedule.items.size())});
  }

  DecodeAttentionParams Params() const {
    int device = 0, processors = 0;
    CudaCheck(cudaGetDevice(&device), "device");
    CudaCheck(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
              "processors");
    DecodeAttentionParams params;
    params.kv = MakeDecodeKvMap(pool.data(), options_.layout, options_.pool_blocks);
    params.layout = options_.layout;
    params.pool_blocks = options_.pool_blocks;
    params.layer = options_.layer;
    params.heads = options_.heads;
    params.qkv = qkv.data();
    params.qkv_stride = qkv_stride();
    params.out = out.data();
    params.out_stride = out_stride();
    params.block_tables = tables.data();
    params.items = items.data();
    params.item_count = item_count.data();
    params.scratch = scratch_layout.At(scratch.data());
    params.processors = processors;
    return params;
  }

 private:
  static DecodeWorldOptions Sized(DecodeWorldOptions options) {
    int64_t blocks = options.first_block;
    for (const int32_t keys : options.keys) blocks += options.layout.BlocksFor(keys);
    if (options.pool_blocks == 0) options.pool_blocks = blocks + 3;
    return options;
  }

  std::vector<int32_t> MakeTables() {
    int64_t blocks = 0;
    for (const int32_t keys : options_.keys) {
      plan_rows.push_back({keys, static_cast<int32_t>(blocks), std::max(0, keys - 1)});
      blocks += options_.layout.BlocksFor(keys);
    }
    std::vector<int32_t> ids(options_.pool_blocks - options_.first_block);
    std::iota(ids.begin(), ids.end(), static_cast<int32_t>(options_.first_block));
    std::shuffle(ids.begin(), ids.end(), std::mt19937_64(options_.seed));
    ids.resize(blocks);
    return ids;
  }

  DecodeWorldOptions options_;
  int rows_;

 public:
  std::vector<DecodeRow> plan_rows;
  DeviceArray<__nv_bfloat16> pool;
  DeviceArray<__nv_bfloat16> qkv;
  DeviceArray<__nv_bfloat16> out;
  DeviceArray<int32_t> tables;
  DeviceArray<DecodeItem> items;
  DeviceArray<int32_t> item_count;
  DecodeScratchLayout scratch_layout;
  DeviceArray<std::byte> scratch;
};

}  // namespace longhaul
