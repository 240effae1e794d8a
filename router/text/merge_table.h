// MergeTable: which two neighbouring symbols merge, how early, and into what. Filled at start, then
// immutable; any thread may read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace longhaul {

// The smallest rank merges first; among equals the leftmost.
struct Merge {
  static constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();

  uint32_t rank = kNoRank;  // kNoRank: the pair does not merge
  int32_t id = -1;          // what it becomes
};

class MergeTable {
 public:
  // Room for `merges` entries; set no more than that.
  explicit MergeTable(size_t merges = 0) {
    int bits = 4;
    while ((size_t{1} << bits) < merges * 2) ++bits;
    slots_.resize(size_t{1} << bits);
    shift_ = 64 - bits;
  }

  // Ids are not negative. A later rank for the same pair replaces the earlier one.
  void Set(int32_t left, int32_t right, Merge merge) {
    const uint64_t key = KeyOf(left, right);
    slots_[SlotOf(key)] = {key, merge};
  }

  // A negative id (a symbol that no token has) merges with nothing.
  Merge Find(int32_t left, int32_t right) const {
    if ((left | right) < 0) return {};
    return slots_[SlotOf(KeyOf(left, right))].merge;
  }

 private:
  static constexpr uint64_t kNoKey = std::numeric_limits<uint64_t>::max();
  struct Slot {
    uint64_t key = kNoKey;
    Merge merge;
  };

  static uint64_t KeyOf(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t SlotOf(uint64_t key) const {
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    h = (h ^ (h >> 32)) * 0xC2B2AE3D27D4EB4Fu;
    size_t at = h >> shift_;
    while (slots_[at].key != kNoKey && slots_[at].key != key) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  std::vector<Slot> slots_;
  int shift_;
};

}  // namespace longhaul
