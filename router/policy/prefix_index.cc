#include "router/policy/prefix_index.h"

#include <algorithm>
#include <bit>

namespace longhaul {
namespace {

// Half a block's name: two blocks with one key are as rare as two with one name in 64 bits, and
// cost a prediction.
uint64_t KeyOf(uint64_t incarnation, const Hash128& block) { return block.low ^ incarnation; }

// So many unknown blocks in a row end a prefix: some may have lost their places to others.
constexpr size_t kUnknownMax = 16;

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

PrefixIndex::PrefixIndex(int64_t entries_max)
    : places_(std::bit_ceil<uint64_t>((entries_max + 7) / 8)) {}

// From the end, so that the first blocks of a prefix are the youngest and it shortens with age
// instead of losing its head.
void PrefixIndex::Add(uint64_t incarnation, absl::Span<const Hash128> chain) {
  for (size_t i = chain.size(); i-- > 0;) {
    const uint64_t key = KeyOf(incarnation, chain[i]);
    auto& keys = places_[PlaceOf(key)].keys;
    const auto old = std::find(keys.begin(), keys.end() - 1, key);  // or the oldest
    std::move_backward(keys.begin(), old, old + 1);
    keys.front() = key;
  }
}

int64_t PrefixIndex::Match(uint64_t incarnation, absl::Span<const Hash128> chain) const {
  size_t blocks = 0;
  for (size_t i = 0; i < chain.size() && i < blocks + kUnknownMax; ++i) {
    const uint64_t key = KeyOf(incarnation, chain[i]);
    const auto& keys = places_[PlaceOf(key)].keys;
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) blocks = i + 1;
  }
  return static_cast<int64_t>(blocks);
}

}  // namespace longhaul
