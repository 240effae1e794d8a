// How KV caches lie in memory: the one description that attention kernels, the wire and admission
// share.
//
// A block holds `block_tokens` consecutive positions. The pool is [layers][blocks][slab]; a slab is
// one block of one layer: keys [kv_heads][block_tokens][head_dim], then values
// [kv_heads][block_tokens][head_dim]. So a layer of neighbouring blocks is one run of bytes for the
// wire, a head range of a slab is two runs (unequal tensor-parallel widths), and a head's keys of a
// block are one run for attention.
#pragma once

#include <cstdint>

#include "common/model/config.h"
#include "common/model/dtype.h"

namespace longhaul {

using BlockId = int32_t;

struct KvLayout {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int block_tokens = 16;
  DType dtype = DType::kBF16;

  int64_t slab_elements() const { return int64_t{2} * kv_heads * block_tokens * head_dim; }
  int64_t slab_bytes() const { return slab_elements() * BlockBytes(dtype); }
  // The keys, or the values, of one head of a slab.
  int64_t head_bytes() const { return int64_t{block_tokens} * head_dim * BlockBytes(dtype); }
  int64_t block_bytes() const { return slab_bytes() * layers; }  // all layers
  int64_t token_bytes() const { return block_bytes() / block_tokens; }
  int64_t BlocksFor(int64_t tokens) const { return (tokens + block_tokens - 1) / block_tokens; }
  // Byte offset of a slab in a pool of `pool_blocks`.
  int64_t SlabOffset(int64_t pool_blocks, int layer, BlockId block) const {
    return (layer * pool_blocks + block) * slab_bytes();
  }
  friend bool operator==(const KvLayout&, const KvLayout&) = default;
};

}  // namespace longhaul
