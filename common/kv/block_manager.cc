#include "common/kv/block_manager.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace longhaul {

BlockManager::BlockManager(int64_t blocks, int block_tokens)
    : block_tokens_(block_tokens), blocks_(blocks) {
  LH_CHECK(block_tokens > 0, "block_tokens must be positive");
  if (blocks > 0) free_runs_.emplace(0, blocks);
  free_count_ = blocks;
}

Hash128 BlockManager::ChainHash(absl::Span<const int32_t> tokens, int64_t block,
                                Hash128 parent) const {
  const auto part = tokens.subspan(block * block_tokens_, block_tokens_);
  return Hash128Of(part.data(), part.size() * sizeof(int32_t), parent);
}

std::vector<BlockId> BlockManager::Match(absl::Span<const int32_t> tokens, int64_t tokens_max,
                                         uint64_t salt) {
  const int64_t blocks_max = std::min<int64_t>(tokens_max, tokens.size()) / block_tokens_;
  std::vector<BlockId> matched;
  Hash128 chain{salt, salt};
  for (int64_t i = 0; i < blocks_max; ++i) {
    chain = ChainHash(tokens, i, chain);
    const auto found = by_name_.find(chain);
    if (found == by_name_.end()) break;
    Block& block = blocks_[found->second];
    if (block.owners++ == 0) cached_.erase(block.cached_at);
    matched.push_back(found->second);
  }
  return matched;
}

bool BlockManager::Allocate(int64_t count, std::vector<BlockId>* out) {
  if (count > available()) return false;
  if (count > free_count_) Evict(count - free_count_);
  while (count > 0) {
    // First fit keeps the pool's tail whole; without a fit the longest run makes the fewest pieces.
    auto best = free_runs_.begin();
    for (auto run = free_runs_.begin(); run != free_runs_.end(); ++run) {
      if (run->second >= count) {
        best = run;
        break;
      }
      if (run->second > best->second) best = run;
    }
    const int64_t taken = std::min(count, best->second);
    TakeRun(best, taken, out);
    count -= taken;
  }
  return true;
}

void BlockManager::TakeRun(std::map<BlockId, int64_t>::iterator run, int64_t count,
                           std::vector<BlockId>* out) {
  const BlockId first = run->first;
  const int64_t length = run->second;
  free_runs_.erase(run);
  if (length > count) free_runs_.emplace(static_cast<BlockId>(first + count), length - count);
  free_count_ -= count;
  for (int64_t i = 0; i < count; ++i) {
    blocks_[first + i].owners = 1;
    out->push_back(static_cast<BlockId>(first + i));
  }
}

void BlockManager::Evict(int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const BlockId id = cached_.front();
    cached_.pop_front();
    by_name_.erase(blocks_[id].name);
    blocks_[id].named = false;
    AddFree(id);
  }
}

void BlockManager::AddFree(BlockId block) {
  ++free_count_;
  auto next = free_runs_.lower_bound(block);
  BlockId first = block;
  int64_t length = 1;
  if (next != free_runs_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == block) {
      first = previous->first;
      length += previous->second;
      free_runs_.erase(previous);
    }
  }
  if (next != free_runs_.end() && next->first == block + 1) {
    length += next->second;
    free_runs_.erase(next);
  }
  free_runs_.emplace(first, length);
}

void BlockManager::Release(absl::Span<const BlockId> blocks) {
  // Last block first: of one prefix the tail is evicted before the head that others may share.
  for (auto it = blocks.rbegin(); it != blocks.rend(); ++it) {
    Block& block = blocks_[*it];
    LH_CHECK(block.owners > 0, absl::StrCat("block ", *it, " released once too often"));
    if (--block.owners > 0) continue;
    if (block.named) {
      block.cached_at = cached_.insert(cached_.end(), *it);
    } else {
      AddFree(*it);
    }
  }
}

int64_t BlockManager::Publish(absl::Span<const int32_t> tokens, absl::Span<const BlockId> blocks,
                              int64_t published, uint64_t salt) {
  const int64_t whole = std::min<int64_t>(tokens.size() / block_tokens_, blocks.size());
  if (published >= whole) return published;
  Hash128 chain{salt, salt};
  for (int64_t i = 0; i < whole; ++i) {
    Block& block = blocks_[blocks[i]];
    if (i < published && block.named) {
      chain = block.name;
      continue;
    }
    chain = ChainHash(tokens, i, chain);
    if (i < published || block.named) continue;
    LH_CHECK(block.owners > 0, absl::StrCat("block ", blocks[i], " published without an owner"));
    // A twin computed at the same time keeps the name; this copy is freed unnamed.
    if (!by_name_.emplace(chain, blocks[i]).second) continue;
    block.named = true;
    block.name = chain;
  }
  return whole;
}

void BlockManager::DropCache() {
  Evict(cached());
  for (Block& block : blocks_) {
    if (!block.named) continue;
    by_name_.erase(block.name);
    block.named = false;
  }
}

}  // namespace longhaul
