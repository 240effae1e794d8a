// PrefixIndex: which worker probably holds which prefix in its KV cache. An estimate made from what
// this router sent where: workers evict on their own, so a hit may be false, and costs only the
// prediction. Bounded: the least recently used entry makes room. Pure.
#pragma once

#include <cstdint>
#include <list>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "common/base/hash.h"

namespace longhaul {

// The names of the prompt's whole blocks: chain[i] names tokens [0, (i + 1) * block_tokens) under
// `salt`.
std::vector<Hash128> ChainOf(absl::Span<const int32_t> tokens, int block_tokens, uint64_t salt);

class PrefixIndex {
 public:
  explicit PrefixIndex(int64_t entries_max) : entries_max_(entries_max) {}

  void Add(uint64_t incarnation, absl::Span<const Hash128> chain);
  // How many leading blocks of `chain` the worker probably holds.
  int64_t Match(uint64_t incarnation, absl::Span<const Hash128> chain) const;
  void Forget(uint64_t incarnation);

  int64_t entries() const { return static_cast<int64_t>(entries_.size()); }

 private:
  using Key = std::pair<uint64_t, Hash128>;  // incarnation, block name

  const int64_t entries_max_;
  std::list<Key> by_age_;  // oldest first
  absl::flat_hash_map<Key, std::list<Key>::iterator> entries_;
};

}  // namespace longhaul
