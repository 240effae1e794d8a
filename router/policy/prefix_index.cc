#include "router/policy/prefix_index.h"

#include <algorithm>

namespace longhaul {
namespace {

// Half a block's name: two blocks with one key are as rare as two with one name in 64 bits, and
// cost a prediction.
uint64_t KeyOf(uint64_t incarnation, const Hash128& block) { return block.low ^ incarnation; }

}  // namespace

std::vector<Hash128> ChainOf(absl::Span<const int32_t> tokens, int block_tokens, uint64_t salt) {
  std::vector<Hash128> chain;
  chain.reserve(tokens.size() / block_tokens);
  Hash128 parent = {salt, ~salt};
  for (size_t end = block_tokens; end <= tokens.size(); end += block_tokens) {
    parent = Hash128Of(tokens.data() + end - block_tokens, block_tokens * sizeof(int32_t), parent);
    chain.push_back(parent);
  }
  return chain;
}

int32_t PrefixIndex::TakeSlot() {
  if (!free_slots_.empty()) {
    const int32_t slot = free_slots_.back();
    free_slots_.pop_back();
    return slot;
  }
  if (static_cast<int64_t>(entries_.size()) <= entries_max_) {
    entries_.emplace_back();
    return static_cast<int32_t>(entries_.size()) - 1;
  }
  const int32_t oldest = entries_[kEnds].younger;
  slot_of_.erase(entries_[oldest].key);
  Unlink(oldest);
  return oldest;
}

void PrefixIndex::Unlink(int32_t slot) {
  const Entry& entry = entries_[slot];
  entries_[entry.older].younger = entry.younger;
  entries_[entry.younger].older = entry.older;
}

void PrefixIndex::LinkYoungest(int32_t slot) {
  Entry& ends = entries_[kEnds];
  entries_[slot].older = ends.older;
  entries_[slot].younger = kEnds;
  entries_[ends.older].younger = slot;
  ends.older = slot;
}

// From the end, so that the first blocks of a prefix are the youngest and eviction shortens
// prefixes instead of cutting off their heads.
void PrefixIndex::Add(uint64_t incarnation, absl::Span<const Hash128> chain) {
  const auto kept = chain.subspan(0, std::min<size_t>(chain.size(), entries_max_));
  for (size_t i = kept.size(); i-- > 0;) {
    const uint64_t key = KeyOf(incarnation, kept[i]);
    int32_t slot = 0;
    if (const auto found = slot_of_.find(key); found != slot_of_.end()) {
      slot = found->second;
      Unlink(slot);
    } else {
      slot = TakeSlot();
      entries_[slot].incarnation = incarnation;
      entries_[slot].key = key;
      slot_of_.emplace(key, slot);
    }
    LinkYoungest(slot);
  }
}

int64_t PrefixIndex::Match(uint64_t incarnation, absl::Span<const Hash128> chain) const {
  int64_t blocks = 0;
  while (blocks < static_cast<int64_t>(chain.size()) &&
         slot_of_.contains(KeyOf(incarnation, chain[blocks]))) {
    ++blocks;
  }
  return blocks;
}

void PrefixIndex::Forget(uint64_t incarnation) {
  for (int32_t slot = entries_[kEnds].younger; slot != kEnds;) {
    const int32_t next = entries_[slot].younger;
    if (entries_[slot].incarnation == incarnation) {
      slot_of_.erase(entries_[slot].key);
      Unlink(slot);
      free_slots_.push_back(slot);
    }
    slot = next;
  }
}

}  // namespace longhaul
