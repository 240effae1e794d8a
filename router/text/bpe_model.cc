#include "router/text/bpe_model.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "router/text/byte_alphabet.h"
#include "router/text/merge_symbols.h"
#include "router/text/unicode_classes.h"

namespace longhaul {
namespace {

constexpr absl::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581
constexpr size_t kCacheSlotsMin = 16;
constexpr size_t kCacheSlotsMax = 16384;
constexpr size_t kTextBytesPerSlot = 32;

bool IsMergeable(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined;
}

size_t FirstCharBytes(absl::string_view text) {
  return DecodeUtf8(text.data(), text.data() + text.size()).bytes;
}

// A merge that no token stands for cannot be applied.
absl::StatusOr<int32_t> IdOf(const absl::flat_hash_map<absl::string_view, int32_t>& ids,
                             absl::string_view text, size_t merge) {
  const auto it = ids.find(text);
  if (it != ids.end()) return it->second;
  return absl::InvalidArgumentError(absl::StrCat("merge ", merge, " needs the token \"",
                                                 absl::Utf8SafeCHexEscape(text),
                                                 "\", which is not in the vocabulary"));
}

}  // namespace

BpeModel::Scratch::Scratch(size_t text_bytes) {
  int bits = 4;
  static_assert(kCacheSlotsMin == 1 << 4);
  while ((size_t{1} << bits) < std::min(kCacheSlotsMax, text_bytes / kTextBytesPerSlot)) ++bits;
  slots_.resize(size_t{1} << bits);
  shift_ = 64 - bits;
}

absl::StatusOr<std::unique_ptr<BpeModel>> BpeModel::Make(const TokenizerData& data,
                                                         bool ignore_merges) {
  std::unique_ptr<BpeModel> model(new BpeModel());
  model->by_chars_ = data.model == TokenizerData::Model::kSentencePieceBpe;
  model->unknown_token_ = data.unknown_token;
  model->token_count_ = static_cast<int32_t>(data.tokens.size());
  model->byte_ids_.fill(-1);

  // Merges name tokens by text. Where two tokens have the same text, the first is meant.
  IdsByText ids;
  ids.reserve(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    if (IsMergeable(data.kinds[id])) ids.emplace(data.tokens[id], static_cast<int32_t>(id));
  }
  LH_RETURN_IF_ERROR(model->FillBytes(data));
  if (model->by_chars_) LH_RETURN_IF_ERROR(model->FillChars(data, &ids));
  if (model->by_chars_ && !data.scores.empty()) {
    model->FillMergesFromScores(data, ids);
  } else {
    LH_RETURN_IF_ERROR(model->FillMerges(data, ids));
  }
  model->FillWholePieces(data, ignore_merges);
  return model;
}

absl::StatusOr<uint8_t> BpeModel::ByteOfToken(absl::string_view text) {
  unsigned value = 0;
  if (text.size() == 6 && absl::StartsWith(text, "<0x") && text[5] == '>' &&
      absl::ascii_isxdigit(text[3]) && absl::ascii_isxdigit(text[4]) &&
      absl::SimpleHexAtoi(text.substr(3, 2), &value)) {
    return static_cast<uint8_t>(value);
  }
  return absl::InvalidArgumentError(absl::StrCat("a byte token must look like <0x0A>, found \"",
                                                 absl::Utf8SafeCHexEscape(text), "\""));
}

absl::Status BpeModel::FillBytes(const TokenizerData& data) {
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    int byte = -1;
    if (by_chars_ && data.kinds[id] == TokenKind::kByte) {
      LH_ASSIGN_OR_RETURN(byte, ByteOfToken(data.tokens[id]));
    } else if (!by_chars_ && data.kinds[id] == TokenKind::kNormal && data.tokens[id].size() <= 2) {
      const std::optional<std::string> bytes = BytesOfAlphabet(data.tokens[id]);
      if (bytes.has_value() && bytes->size() == 1) byte = static_cast<uint8_t>(bytes->front());
    }
    if (byte >= 0 && byte_ids_[byte] < 0) byte_ids_[byte] = static_cast<int32_t>(id);
  }
  return absl::OkStatus();
}

absl::Status BpeModel::FillChars(const TokenizerData& data, IdsByText* ids) {
  std::vector<absl::string_view> missing;
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    absl::string_view rest = data.tokens[id];
    if (!IsMergeable(data.kinds[id])) continue;
    while (!rest.empty()) {
      const absl::string_view character = rest.substr(0, FirstCharBytes(rest));
      const auto [it, is_new] =
          ids->emplace(character, token_count_ + static_cast<int32_t>(missing.size()));
      if (is_new) missing.push_back(character);
      rest.remove_prefix(character.size());
    }
  }
  for (absl::string_view character : missing) extra_chars_.emplace_back(character);
  std::vector<std::pair<absl::string_view, int32_t>> chars;
  for (const auto& [text, id] : *ids) {
    if (!text.empty() && FirstCharBytes(text) == text.size()) chars.emplace_back(text, id);
  }
  chars_ = PieceMap(chars.size());
  for (const auto& [text, id] : chars) chars_.Insert(text, id);
  return absl::OkStatus();
}

absl::Status BpeModel::FillMerges(const TokenizerData& data, const IdsByText& ids) {
  merges_ = MergeTable(data.merges.size());
  for (size_t rank = 0; rank < data.merges.size(); ++rank) {
    const auto& [left, right] = data.merges[rank];
    LH_ASSIGN_OR_RETURN(const int32_t left_id, IdOf(ids, left, rank));
    LH_ASSIGN_OR_RETURN(const int32_t right_id, IdOf(ids, right, rank));
    LH_ASSIGN_OR_RETURN(const int32_t merged_id, IdOf(ids, absl::StrCat(left, right), rank));
    merges_.Set(left_id, right_id, {static_cast<uint32_t>(rank), merged_id});
    merges_across_words_ = merges_across_words_ || (!absl::EndsWith(left, kSpaceMark) &&
                                                    absl::StartsWith(right, kSpaceMark));
  }
  return absl::OkStatus();
}

void BpeModel::FillMergesFromScores(const TokenizerData& data, const IdsByText& ids) {
  // Equal scores get equal ranks: then the leftmost pair merges first.
  std::vector<float> ranked = data.scores;
  std::sort(ranked.begin(), ranked.end(), std::greater<float>());
  ranked.erase(std::unique(ranked.begin(), ranked.end()), ranked.end());

  struct Split {
    int32_t left, right;
    Merge merge;
  };
  std::vector<Split> splits;
  for (const auto& [text, id] : ids) {
    if (id >= token_count_) continue;
    const auto rank =
        std::lower_bound(ranked.begin(), ranked.end(), data.scores[id], std::greater<float>()) -
        ranked.begin();
    for (size_t at = 0; at < text.size();) {
      at += FirstCharBytes(text.substr(at));
      const auto left = ids.find(text.substr(0, at));
      const auto right = ids.find(text.substr(at));
      if (left == ids.end() || right == ids.end()) continue;
      splits.push_back({left->second, right->second, {static_cast<uint32_t>(rank), id}});
      merges_across_words_ =
          merges_across_words_ || (!absl::EndsWith(text.substr(0, at), kSpaceMark) &&
                                   absl::StartsWith(text.substr(at), kSpaceMark));
    }
  }
  merges_ = MergeTable(splits.size());
  for (const Split& split : splits) merges_.Set(split.left, split.right, split.merge);
}

void BpeModel::FillWholePieces(const TokenizerData& data, bool ignore_merges) {
  whole_pieces_ = PieceMap(data.tokens.size());
  std::vector<int32_t> symbols;
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    if (!IsMergeable(data.kinds[id]) || data.tokens[id].empty()) continue;
    std::string piece = data.tokens[id];
    if (!by_chars_) {
      std::optional<std::string> bytes = BytesOfAlphabet(piece);
      if (!bytes.has_value()) continue;
      piece = *std::move(bytes);
      const auto is_known = [this](char c) { return byte_ids_[static_cast<uint8_t>(c)] >= 0; };
      if (!ignore_merges && !std::all_of(piece.begin(), piece.end(), is_known)) continue;
    }
    if (!ignore_merges) {
      FirstSymbols(piece, &symbols);
      MergeSymbols(merges_, &symbols);
      if (symbols.size() != 1 || symbols[0] != static_cast<int32_t>(id)) continue;
    }
    whole_pieces_.Insert(piece, static_cast<int32_t>(id));
  }
}

void BpeModel::FirstSymbols(absl::string_view piece, std::vector<int32_t>* symbols) const {
  symbols->clear();
  if (!by_chars_) {
    for (char byte : piece) {
      const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
      if (id >= 0) symbols->push_back(id);
    }
    return;
  }
  for (size_t at = 0; at < piece.size();) {
    const size_t bytes = FirstCharBytes(piece.substr(at));
    const int32_t id = chars_.Find(piece.substr(at, bytes));
    symbols->push_back(id >= 0 ? id : -1 - static_cast<int32_t>(at));
    at += bytes;
  }
}

void BpeModel::EncodePiece(absl::string_view piece, Scratch* scratch,
                           std::vector<int32_t>* ids) const {
  if (piece.size() > PackedPiece::kBytesMax) {
    const int32_t whole = whole_pieces_.Find(piece);
    if (whole >= 0) return ids->push_back(whole);
    return AppendMerged(piece, &scratch->symbols_, ids);
  }
  const PackedPiece key = PackedPiece::Of(piece);
  const int32_t whole = whole_pieces_.Find(key);
  if (whole >= 0) return ids->push_back(whole);
  Scratch::Slot& slot = scratch->SlotFor(key);
  if (slot.piece == key) {
    ids->insert(ids->end(), slot.ids.begin(), slot.ids.begin() + slot.count);
    return;
  }
  const size_t before = ids->size();
  AppendMerged(piece, &scratch->symbols_, ids);
  const size_t count = ids->size() - before;
  if (count > slot.ids.size()) return;
  slot.piece = key;
  slot.count = static_cast<int32_t>(count);
  std::copy(ids->begin() + static_cast<ptrdiff_t>(before), ids->end(), slot.ids.begin());
}

void BpeModel::AppendMerged(absl::string_view piece, std::vector<int32_t>* symbols,
                            std::vector<int32_t>* ids) const {
  FirstSymbols(piece, symbols);
  MergeSymbols(merges_, symbols);
  if (!by_chars_) {
    ids->insert(ids->end(), symbols->begin(), symbols->end());
    return;
  }
  bool after_unknown = false;
  for (int32_t symbol : *symbols) {
    if (symbol >= 0 && symbol < token_count_) {
      ids->push_back(symbol);
      after_unknown = false;
    } else if (symbol < 0) {
      const absl::string_view rest = piece.substr(static_cast<size_t>(-1 - symbol));
      after_unknown = AppendUnknown(rest.substr(0, FirstCharBytes(rest)), after_unknown, ids);
    } else {
      after_unknown = AppendUnknown(extra_chars_[symbol - token_count_], after_unknown, ids);
    }
  }
}

bool BpeModel::AppendUnknown(absl::string_view character, bool after_unknown,
                             std::vector<int32_t>* ids) const {
  const auto has_token = [this](char c) { return byte_ids_[static_cast<uint8_t>(c)] >= 0; };
  if (std::all_of(character.begin(), character.end(), has_token)) {
    for (char byte : character) ids->push_back(byte_ids_[static_cast<uint8_t>(byte)]);
    return false;
  }
  if (!after_unknown && unknown_token_ >= 0) ids->push_back(unknown_token_);
  return true;
}

}  // namespace longhaul
