// 64- and 128-bit XXH3, the one hash of the house: block chains, digests, fingerprints.
// Not cryptographic: it guards against faults, not against an adversary.
#pragma once

#include <xxhash.h>

#include <compare>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace longhaul {

struct Hash128 {
  uint64_t high = 0;
  uint64_t low = 0;
  friend auto operator<=>(const Hash128&, const Hash128&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const Hash128& hash) {
    return H::combine(std::move(state), hash.high, hash.low);
  }
};

inline uint64_t Hash64Of(const void* data, size_t bytes, uint64_t seed = 0) {
  return XXH3_64bits_withSeed(data, bytes, seed);
}
inline uint64_t Hash64Of(absl::string_view text, uint64_t seed = 0) {
  return Hash64Of(text.data(), text.size(), seed);
}

// `parent` seeds the hash, so that a chain of calls names a whole prefix.
inline Hash128 Hash128Of(const void* data, size_t bytes, Hash128 parent = {}) {
  const XXH128_hash_t body = XXH3_128bits_withSeed(data, bytes, parent.low);
  const uint64_t words[4] = {parent.high, parent.low, body.high64, body.low64};
  const XXH128_hash_t chained = XXH3_128bits(words, sizeof(words));
  return {chained.high64, chained.low64};
}

}  // namespace longhaul
