// PieceMap: bytes of a piece -> token id, the hottest look-up of the tokenizer. Pieces of up to 15
// bytes (nearly all) live in a flat open-addressing table as two words; longer ones in a hash map.
// Filled at start, then immutable; any thread may read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace longhaul {

// A piece of 1 to 15 bytes with its length in the top byte; all zero is no piece.
struct PackedPiece {
  static constexpr size_t kBytesMax = 15;

  uint64_t low = 0;
  uint64_t high = 0;

  static PackedPiece Of(absl::string_view piece) {
    const char* const p = piece.data();
    const size_t n = piece.size();
    PackedPiece packed;
    if (n > 8) {
      packed.low = Load<uint64_t>(p);
      packed.high = Load<uint64_t>(p + n - 8) >> (8 * (16 - n));
    } else if (n == 8) {
      packed.low = Load<uint64_t>(p);
    } else if (n >= 4) {
      packed.low = Load<uint32_t>(p) | static_cast<uint64_t>(Load<uint32_t>(p + n - 4))
                                           << (8 * (n - 4));
    } else {
      for (size_t i = 0; i < n; ++i) {
        packed.low |= static_cast<uint64_t>(static_cast<uint8_t>(p[i])) << (8 * i);
      }
    }
    packed.high |= static_cast<uint64_t>(n) << 56;
    return packed;
  }

  friend bool operator==(const PackedPiece& a, const PackedPiece& b) {
    return a.low == b.low && a.high == b.high;
  }

  uint64_t Hash() const {
    uint64_t h = low * 0x9E3779B97F4A7C15u ^ high * 0xC2B2AE3D27D4EB4Fu;
    h ^= h >> 32;
    return h * 0x9E3779B97F4A7C15u;
  }

 private:
  template <typename Word>
  static Word Load(const char* p) {
    Word word;
    std::memcpy(&word, p, sizeof(word));
    return word;
  }
};

class PieceMap {
 public:
  // Room for `pieces` entries; set no more than that.
  explicit PieceMap(size_t pieces = 0) {
    int bits = 4;
    while ((size_t{1} << bits) < pieces * 2) ++bits;
    slots_.resize(size_t{1} << bits);
    shift_ = 64 - bits;
  }

  // The first id of a piece stays. `piece` is not empty.
  void Insert(absl::string_view piece, int32_t id) {
    if (piece.size() > PackedPiece::kBytesMax) {
      long_pieces_.emplace(std::string(piece), id);
      return;
    }
    const PackedPiece key = PackedPiece::Of(piece);
    Slot& slot = slots_[SlotOf(key)];
    if (slot.id < 0) slot = {key, id};
  }

  // The id of a piece, -1 when there is none.
  int32_t Find(absl::string_view piece) const {
    if (piece.size() > PackedPiece::kBytesMax) {
      const auto it = long_pieces_.find(piece);
      return it == long_pieces_.end() ? -1 : it->second;
    }
    return Find(PackedPiece::Of(piece));
  }
  int32_t Find(const PackedPiece& key) const { return slots_[SlotOf(key)].id; }

 private:
  struct Slot {
    PackedPiece key;
    int32_t id = -1;
  };

  // Where `key` is, or the empty slot where it would go.
  size_t SlotOf(const PackedPiece& key) const {
    size_t at = key.Hash() >> shift_;
    while (slots_[at].id >= 0 && !(slots_[at].key == key)) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  std::vector<Slot> slots_;
  int shift_;
  absl::flat_hash_map<std::string, int32_t> long_pieces_;
};

}  // namespace longhaul
