// ShardedKvPool: the KV pools of all ranks of a worker. A block id names one block in every rank's
// pool, each with the rank's own heads, so books are kept once. A worker of one rank has a pool of
// one part: any KvPool is one.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "common/model/backend.h"
#include "common/model/kv_layout.h"
#include "common/model/tensor_shard.h"

namespace longhaul {

struct ShardedKvPool {
  ShardedKvPool() = default;
  ShardedKvPool(const KvPool& pool)  // NOLINT: a pool is a pool of one part
      : layout(pool.layout), blocks(pool.blocks), ranks{pool.data} {}
  ShardedKvPool(KvLayout layout, int64_t blocks, std::vector<std::byte*> ranks)
      : layout(layout), blocks(blocks), ranks(std::move(ranks)) {}

  int width() const { return static_cast<int>(ranks.size()); }

  ShardRange HeadsOf(int rank) const { return KvHeadsOf(layout.kv_heads, {rank, width()}); }
  // The first rank that holds the head.
  int RankOf(int64_t head) const { return static_cast<int>(head * width() / layout.kv_heads); }
  KvPool Rank(int rank) const {
    KvPool pool{layout, blocks, ranks[rank]};
    pool.layout.kv_heads = static_cast<int>(HeadsOf(rank).count);
    return pool;
  }

  KvLayout layout;  // of the whole model
  int64_t blocks = 0;
  std::vector<std::byte*> ranks;  // the pools' data
};

}  // namespace longhaul
