// PrefixIndex: which worker probably holds which prefix in its KV cache. An estimate made from what
// this router sent where: workers evict on their own, so a hit may be false, and costs only the
// prediction. An incarnation that is gone is never asked for again; what was known of it ages.
// Pure.
//
// Bounded as a processor's cache is: a block has eight places, one line of memory, and the oldest
// there makes room. A long prompt names hundreds of blocks while other requests wait for the
// router's loop.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/base/hash.h"

namespace longhaul {

// The names of the prompt's whole blocks: chain[i] names tokens [0, (i + 1) * block_tokens) under
// `salt`.
std::vector<Hash128> ChainOf(absl::Span<const int32_t> tokens, int block_tokens, uint64_t salt);

class PrefixIndex {
 public:
  // Room for `entries_max` blocks on workers, rounded up, 8 bytes each. All of a prefix is kept
  // until some eighth of that came after it.
  explicit PrefixIndex(int64_t entries_max);

  void Add(uint64_t incarnation, absl::Span<const Hash128> chain);
  // How many leading blocks of `chain` the worker probably holds: a block that is known tells of
  // all before it.
  int64_t Match(uint64_t incarnation, absl::Span<const Hash128> chain) const;

 private:
  struct alignas(64) Places {
    std::array<uint64_t, 8> keys = {};  // the youngest first; 0: nothing
  };

  size_t PlaceOf(uint64_t key) const { return key & (places_.size() - 1); }

  std::vector<Places> places_;  // a power of two
};

}  // namespace longhaul
