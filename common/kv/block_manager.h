// BlockManager: who holds which KV block, and which blocks still hold a reusable prefix.
//
// A block is live (held by at least one owner), cached (held by nobody, its content named by a hash
// and still reusable) or free. The cached blocks, oldest first, are what allocation evicts: the
// free list is the cache. The content of a whole block is named by a chain of hashes over all
// tokens up to its end, so a match is always a prefix from position 0. Pure bookkeeping: it never
// touches the memory. Lives on one Loop.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "common/base/hash.h"
#include "common/model/kv_layout.h"

namespace longhaul {

class BlockManager {
 public:
  // `blocks` >= 0 blocks of `block_tokens` > 0 positions each, ids [0, blocks).
  BlockManager(int64_t blocks, int block_tokens);

  // The cached blocks that hold the longest prefix of `tokens`, in whole blocks and at most
  // `tokens_max` positions. The caller becomes an owner of each. Prefixes published under another
  // salt never match.
  std::vector<BlockId> Match(absl::Span<const int32_t> tokens, int64_t tokens_max, uint64_t salt);

  // Appends `count` blocks to `out`, neighbours where possible, all or none: false when fewer are
  // available.
  bool Allocate(int64_t count, std::vector<BlockId>* out);

  // Gives up one ownership of each block. A published block without owners becomes cached, most
  // recent last.
  void Release(absl::Span<const BlockId> blocks);

  // Names the content of whole blocks: `blocks[i]` holds positions [i, i + 1) * block_tokens of
  // `tokens`. Call it again as tokens grow, with `published` = how many leading blocks were named
  // before; returns the new count.
  int64_t Publish(absl::Span<const int32_t> tokens, absl::Span<const BlockId> blocks,
                  int64_t published, uint64_t salt);

  // Forgets every cached prefix; live blocks keep their owners.
  void DropCache();

  int64_t total() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t live() const { return total() - cached() - free(); }
  int64_t cached() const { return static_cast<int64_t>(cached_.size()); }
  int64_t free() const { return free_count_; }
  int64_t available() const { return cached() + free(); }
  int block_tokens() const { return block_tokens_; }
  int64_t BlocksFor(int64_t tokens) const { return (tokens + block_tokens_ - 1) / block_tokens_; }

 private:
  struct Block {
    int32_t owners = 0;
    bool named = false;
    Hash128 name;
    std::list<BlockId>::iterator cached_at;  // valid when named and owners == 0
  };

  Hash128 ChainHash(absl::Span<const int32_t> tokens, int64_t block, Hash128 parent) const;
  void Evict(int64_t count);
  void AddFree(BlockId block);
  void TakeRun(std::map<BlockId, int64_t>::iterator run, int64_t count, std::vector<BlockId>* out);

  const int block_tokens_;
  std::vector<Block> blocks_;
  absl::flat_hash_map<Hash128, BlockId> by_name_;
  std::list<BlockId> cached_;             // oldest first
  std::map<BlockId, int64_t> free_runs_;  // first block -> length, never adjacent
  int64_t free_count_ = 0;
};

}  // namespace longhaul
