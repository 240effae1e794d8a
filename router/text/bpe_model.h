// BpeModel: the vocabulary and merges of byte-level or SentencePiece-style BPE; turns one piece of
// text into token ids. Immutable after Make; any thread, each with its own Scratch.
//
// Byte-level: the first symbols are the piece's bytes. SentencePiece (Kudo and Richardson, 2018):
// they are its characters; one that the vocabulary lacks becomes its bytes' tokens (byte fallback),
// or the unknown token, once for a run of such characters, when there are no byte tokens. Where
// tokens have scores instead of merges, any two neighbours whose text together is a token merge,
// the highest score first; Make spells that out as merges, so that one algorithm serves both.
//
// Most pieces are whole tokens. Make finds the tokens that their own bytes merge into, and such
// pieces then cost one look-up. Pieces of several tokens are remembered in the Scratch.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model/tokenizer_data.h"
#include "router/text/merge_table.h"
#include "router/text/piece_map.h"

namespace longhaul {

class BpeModel {
 public:
  // What one Encode call works with: symbols, and a bounded cache of merged pieces.
  class Scratch {
   public:
    // text_bytes: about how much will be encoded; sizes the cache (at most 1 MiB).
    explicit Scratch(size_t text_bytes);

   private:
    friend class BpeModel;
    static constexpr size_t kCachedIdsMax = 7;
    struct Slot {
      PackedPiece piece;
      int32_t count = 0;
      std::array<int32_t, kCachedIdsMax> ids;
    };

    Slot& SlotFor(const PackedPiece& piece) { return slots_[piece.Hash() >> shift_]; }

    std::vector<Slot> slots_;
    int shift_;
    std::vector<int32_t> symbols_;
  };

  // ignore_merges: a piece that is a token is that token even if the merges would not build it.
  static absl::StatusOr<std::unique_ptr<BpeModel>> Make(const TokenizerData& data,
                                                        bool ignore_merges);

  // Appends the ids of `piece` (not empty; SentencePiece: with U+2581 for spaces).
  void EncodePiece(absl::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

  // SentencePiece: some merge joins the end of a word with the U+2581 of the next, so that only the
  // whole text may be merged. No usual vocabulary does.
  bool merges_across_words() const { return merges_across_words_; }

  // The byte that a SentencePiece byte token ("<0x0A>") stands for.
  static absl::StatusOr<uint8_t> ByteOfToken(absl::string_view text);

 private:
  using IdsByText = absl::flat_hash_map<absl::string_view, int32_t>;

  BpeModel() = default;
  absl::Status FillBytes(const TokenizerData& data);
  absl::Status FillChars(const TokenizerData& data, IdsByText* ids);
  absl::Status FillMerges(const TokenizerData& data, const IdsByText& ids);
  void FillMergesFromScores(const TokenizerData& data, const IdsByText& ids);
  void FillWholePieces(const TokenizerData& data, bool ignore_merges);

  // The symbols that `piece` starts with. A character without an id is -1 - its offset.
  void FirstSymbols(absl::string_view piece, std::vector<int32_t>* symbols) const;
  void AppendMerged(absl::string_view piece, std::vector<int32_t>* symbols,
                    std::vector<int32_t>* ids) const;
  // Returns whether it appended the unknown token.
  bool AppendUnknown(absl::string_view character, bool after_unknown,
                     std::vector<int32_t>* ids) const;

  bool by_chars_ = false;  // SentencePiece
  bool merges_across_words_ = false;
  int32_t unknown_token_ = -1;
  int32_t token_count_ = 0;
  std::array<int32_t, 256> byte_ids_;  // -1: the vocabulary lacks it
  PieceMap chars_;                     // SentencePiece: the id of a character
  // Characters that are no tokens themselves but parts of some; their ids count from token_count_.
  std::vector<std::string> extra_chars_;
  MergeTable merges_;
  PieceMap whole_pieces_;
};

}  // namespace longhaul
