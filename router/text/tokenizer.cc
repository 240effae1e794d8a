#include "router/text/tokenizer.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "router/text/added_tokens.h"
#include "router/text/bpe_model.h"
#include "router/text/byte_alphabet.h"
#include "router/text/nfc.h"
#include "router/text/pre_tokenizer.h"

namespace longhaul {
namespace {

constexpr absl::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581
constexpr size_t kTokensMax = size_t{1} << 24;
constexpr size_t kTokenBytesMax = 4096;
constexpr size_t kTextBytesMax = size_t{1} << 29;
constexpr size_t kTextBytesPerToken = 3;  // fewer than usual, to reserve room for the ids

absl::Status CheckData(const TokenizerData& data) {
  const size_t count = data.tokens.size();
  if (count == 0 || count > kTokensMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the vocabulary has ", count, " tokens; 1 to ", kTokensMax, " are supported"));
  }
  if (data.kinds.size() != count) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabulary has ", count, " tokens but ",
                                                   data.kinds.size(), " token types"));
  }
  if (!data.scores.empty() && data.scores.size() != count) {
    return absl::InvalidArgumentError(
        absl::StrCat("the vocabulary has ", count, " tokens but ", data.scores.size(), " scores"));
  }
  for (size_t id = 0; id < count; ++id) {
    if (data.tokens[id].size() > kTokenBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat("token ", id, " has ", data.tokens[id].size(),
                                                     " bytes; at most ", kTokenBytesMax,
                                                     " are supported"));
    }
    if (!data.scores.empty() && std::isnan(data.scores[id])) {
      return absl::InvalidArgumentError(
          absl::StrCat("the score of token ", id, " is not a number"));
    }
  }
  const auto check_id = [count](absl::string_view name, int32_t id) {
    if (id >= -1 && id < static_cast<int64_t>(count)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("the ", name, " token has id ", id,
                                                   ", but the vocabulary has ", count, " tokens"));
  };
  LH_RETURN_IF_ERROR(check_id("BOS", data.bos_token));
  LH_RETURN_IF_ERROR(check_id("EOS", data.eos_token));
  LH_RETURN_IF_ERROR(check_id("unknown", data.unknown_token));
  if (data.add_bos && data.bos_token < 0) {
    return absl::InvalidArgumentError("the model adds a BOS token but names none");
  }
  if (data.add_eos && data.eos_token < 0) {
    return absl::InvalidArgumentError("the model adds an EOS token but names none");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> BytesOfToken(const TokenizerData& data, size_t id) {
  const std::string& text = data.tokens[id];
  const bool by_chars = data.model == TokenizerData::Model::kSentencePieceBpe;
  if (data.kinds[id] == TokenKind::kByte && by_chars) {
    LH_ASSIGN_OR_RETURN(const uint8_t byte, BpeModel::ByteOfToken(text));
    return std::string(1, static_cast<char>(byte));
  }
  if (data.kinds[id] != TokenKind::kNormal) return text;
  if (by_chars) return absl::StrReplaceAll(text, {{kSpaceMark, " "}});
  return BytesOfAlphabet(text).value_or(text);
}

// Calls `word` with the words of `text`, each with U+2581 for the spaces before it; with the whole
// text at once unless `split`.
template <typename Word>
void ForEachSpaceMarkedWord(absl::string_view text, bool space_before, bool split, Word word) {
  std::string marked;
  bool after_space = false;
  const auto append_space = [&] {
    if (split && !after_space && !marked.empty()) {
      word(absl::string_view(marked));
      marked.clear();
    }
    absl::StrAppend(&marked, kSpaceMark);
    after_space = true;
  };
  if (space_before) append_space();
  while (!text.empty()) {
    if (text[0] == ' ' || absl::StartsWith(text, kSpaceMark)) {
      append_space();
      text.remove_prefix(text[0] == ' ' ? 1 : kSpaceMark.size());
      continue;
    }
    size_t bytes = 1;
    while (bytes < text.size() && text[bytes] != ' ' && text[bytes] != kSpaceMark[0]) ++bytes;
    absl::StrAppend(&marked, text.substr(0, bytes));
    text.remove_prefix(bytes);
    after_space = false;
  }
  word(absl::string_view(marked));
}

}  // namespace

Tokenizer::Tokenizer() = default;
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Make(const TokenizerData& data) {
  LH_RETURN_IF_ERROR(CheckData(data));
  std::unique_ptr<Tokenizer> result(new Tokenizer());
  result->kinds_ = data.kinds;
  result->normalize_nfc_ = data.normalize_nfc;
  result->add_bos_ = data.add_bos;
  result->add_eos_ = data.add_eos;
  result->bos_token_ = data.bos_token;
  result->eos_token_ = data.eos_token;
  bool ignore_merges = data.ignore_merges;
  if (data.model == TokenizerData::Model::kByteLevelBpe) {
    LH_ASSIGN_OR_RETURN(result->pre_tokenizer_, PreTokenizer::Make(data));
    ignore_merges = ignore_merges || result->pre_tokenizer_->implies_ignore_merges();
    result->normalize_nfc_ = result->normalize_nfc_ || result->pre_tokenizer_->implies_nfc();
  } else {
    result->add_space_prefix_ = data.add_space_prefix;
    result->space_prefix_first_only_ = data.space_prefix_first_only;
  }
  LH_ASSIGN_OR_RETURN(result->model_, BpeModel::Make(data, ignore_merges));

  std::vector<std::pair<absl::string_view, int32_t>> all_added, user_defined;
  result->token_bytes_.reserve(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    LH_ASSIGN_OR_RETURN(std::string bytes, BytesOfToken(data, id));
    result->token_bytes_.push_back(std::move(bytes));
    const bool is_user_defined = data.kinds[id] == TokenKind::kUserDefined;
    if (data.tokens[id].empty() || (!is_user_defined && data.kinds[id] != TokenKind::kControl)) {
      continue;
    }
    const std::pair<absl::string_view, int32_t> added(data.tokens[id], static_cast<int32_t>(id));
    all_added.push_back(added);
    if (is_user_defined) user_defined.push_back(added);
    result->added_ids_.emplace(added);
  }
  result->all_added_ = std::make_unique<AddedTokenMatcher>(all_added);
  result->user_defined_ = std::make_unique<AddedTokenMatcher>(user_defined);
  return result;
}

std::vector<int32_t> Tokenizer::Encode(absl::string_view text, bool add_special,
                                       bool parse_special) const {
  LH_CHECK(text.size() <= kTextBytesMax, "a text to encode has more than 512 MiB");
  std::vector<int32_t> ids;
  ids.reserve(text.size() / kTextBytesPerToken + 2);
  BpeModel::Scratch scratch(text.size());
  std::string normalized;
  const auto encode_piece = [&](absl::string_view piece) {
    model_->EncodePiece(piece, &scratch, &ids);
  };
  const auto encode_stretch = [&](absl::string_view stretch, bool at_start) {
    if (stretch.empty()) return;
    if (normalize_nfc_) stretch = NormalizeNfc(stretch, &normalized);
    if (pre_tokenizer_ != nullptr) return pre_tokenizer_->Split(stretch, encode_piece);
    // The kind of model that gives the prefix to the first stretch only ("Metaspace" in
    // tokenizer.json) does without it before a space.
    const bool begins_with_space =
        absl::StartsWith(stretch, " ") || absl::StartsWith(stretch, kSpaceMark);
    const bool space_before =
        add_space_prefix_ && (!space_prefix_first_only_ || (at_start && !begins_with_space));
    ForEachSpaceMarkedWord(stretch, space_before, !model_->merges_across_words(), encode_piece);
  };

  if (add_special && add_bos_) ids.push_back(bos_token_);
  const AddedTokenMatcher& added = parse_special ? *all_added_ : *user_defined_;
  for (size_t at = 0; at < text.size();) {
    const AddedTokenMatcher::Match match = added.FindFrom(text, at);
    encode_stretch(text.substr(at, match.begin - at), at == 0);
    if (match.bytes > 0) ids.push_back(match.id);
    at = match.begin + match.bytes;
  }
  if (add_special && add_eos_) ids.push_back(eos_token_);
  return ids;
}

absl::string_view Tokenizer::TokenBytes(int32_t id) const {
  LH_CHECK(id >= 0 && id < vocab_size(), "token id outside the vocabulary");
  return token_bytes_[static_cast<size_t>(id)];
}

bool Tokenizer::IsControl(int32_t id) const {
  LH_CHECK(id >= 0 && id < vocab_size(), "token id outside the vocabulary");
  const TokenKind kind = kinds_[static_cast<size_t>(id)];
  return kind == TokenKind::kControl || kind == TokenKind::kUnknown;
}

std::optional<int32_t> Tokenizer::AddedTokenId(absl::string_view text) const {
  const auto it = added_ids_.find(text);
  if (it == added_ids_.end()) return std::nullopt;
  return it->second;
}

}  // namespace longhaul
