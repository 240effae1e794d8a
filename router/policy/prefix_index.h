// PrefixIndex: which worker probably holds which prefix in its KV cache. An estimate made from what
// this router sent where: workers evict on their own, so a hit may be false, and costs only the
// prediction. Bounded: the least recently used entry makes room. Pure. A long prompt names hundreds
// of blocks while other requests wait for the router's loop, so entries lie in one array.
#pragma once

#include <cstdint>
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
  explicit PrefixIndex(int64_t entries_max) : entries_max_(entries_max), entries_(1) {}

  void Add(uint64_t incarnation, absl::Span<const Hash128> chain);
  // How many leading blocks of `chain` the worker probably holds.
  int64_t Match(uint64_t incarnation, absl::Span<const Hash128> chain) const;
  void Forget(uint64_t incarnation);

  int64_t entries() const { return static_cast<int64_t>(slot_of_.size()); }

 private:
  // One block on one worker, between its neighbours by age.
  struct Entry {
    uint64_t incarnation = 0;
    uint64_t key = 0;
    int32_t older = 0;
    int32_t younger = 0;
  };
  static constexpr int32_t kEnds = 0;  // the slot between the youngest and the oldest entry

  int32_t TakeSlot();
  void Unlink(int32_t slot);
  void LinkYoungest(int32_t slot);

  const int64_t entries_max_;
  std::vector<Entry> entries_;
  std::vector<int32_t> free_slots_;
  absl::flat_hash_map<uint64_t, int32_t> slot_of_;  // by key
};

}  // namespace longhaul
