#include "router/policy/prefix_index.h"

namespace longhaul {

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

// From the end, so that the first blocks of a prefix are the youngest and eviction shortens
// prefixes instead of cutting off their heads.
void PrefixIndex::Add(uint64_t incarnation, absl::Span<const Hash128> chain) {
  const auto kept = chain.subspan(0, std::min<size_t>(chain.size(), entries_max_));
  for (size_t i = kept.size(); i-- > 0;) {
    const Key key = {incarnation, kept[i]};
    const auto [entry, added] = entries_.try_emplace(key);
    if (added) {
      entry->second = by_age_.insert(by_age_.end(), key);
    } else {
      by_age_.splice(by_age_.end(), by_age_, entry->second);
    }
  }
  while (entries() > entries_max_) {
    entries_.erase(by_age_.front());
    by_age_.pop_front();
  }
}

int64_t PrefixIndex::Match(uint64_t incarnation, absl::Span<const Hash128> chain) const {
  int64_t blocks = 0;
  while (blocks < static_cast<int64_t>(chain.size()) &&
         entries_.contains(Key{incarnation, chain[blocks]})) {
    ++blocks;
  }
  return blocks;
}

void PrefixIndex::Forget(uint64_t incarnation) {
  for (auto it = by_age_.begin(); it != by_age_.end();) {
    if (it->first != incarnation) {
      ++it;
      continue;
    }
    entries_.erase(*it);
    it = by_age_.erase(it);
  }
}

}  // namespace longhaul
