// Tokenizer: text to token ids and back, token-exact with the library that models are trained with
// (Hugging Face `tokenizers`; for SentencePiece vocabularies also Google's `sentencepiece`).
// Byte-level BPE and SentencePiece-style BPE, made from what a model file holds. The router owns
// one per model; immutable after Make, so any thread may call it.
//
// Encode runs these steps: cut out the added tokens (longest match first), then for each stretch of
// text between them normalise (NFC where the model asks), split into pieces (pre_tokenizer.h; for
// SentencePiece spaces become U+2581), and merge each piece (bpe_model.h). Time is O(n log n) in
// the worst case and linear for text whose pieces are short.
//
// Invalid UTF-8 (stray or missing continuation bytes, overlong forms, surrogates, above U+10FFFF)
// never fails: every invalid byte counts as one character that is neither letter, number nor space,
// is left alone by NFC, and becomes its byte's token. So the token bytes of the ids give back the
// input bytes, with two exceptions that the reference libraries share: NFC models change the
// spelling of characters, and a byte for which the vocabulary has no token is left out (byte-level;
// SmolLM2 lacks 21 bytes, mostly ones that valid UTF-8 never has) or becomes the unknown token
// (SentencePiece without byte tokens).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model/tokenizer_data.h"

namespace longhaul {

class AddedTokenMatcher;
class BpeModel;
class PreTokenizer;

class Tokenizer {
 public:
  // Errors name the token, merge or pattern that cannot be used and why; an unknown pre-tokenizer
  // name lists the known ones. Costs about 0.2 s for 128K tokens. `data` is not kept.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const TokenizerData& data);
  ~Tokenizer();

  // add_special: the model's BOS before and EOS after, where the model wants them.
  // parse_special: the text of a control token ("<|im_start|>") becomes its id, as chat templates
  // need; otherwise it is plain text, as anything that a user wrote must be. User-defined tokens
  // are found either way. `text` holds at most 512 MiB.
  std::vector<int32_t> Encode(absl::string_view text, bool add_special, bool parse_special) const;

  // The bytes that a token stands for, maybe a part of a UTF-8 character. A control token gives its
  // text (the caller decides whether to show it). Requires 0 <= id < vocab_size(). Valid while the
  // tokenizer lives.
  absl::string_view TokenBytes(int32_t id) const;
  // True for control and unknown tokens: not part of the text that a model writes.
  bool IsControl(int32_t id) const;
  // The id of an added token (control or user-defined) by its text, for "<|im_end|>" and the like.
  std::optional<int32_t> AddedTokenId(absl::string_view text) const;

  int64_t vocab_size() const { return static_cast<int64_t>(token_bytes_.size()); }
  int32_t bos_token() const { return bos_token_; }  // -1: none
  int32_t eos_token() const { return eos_token_; }  // -1: none
  bool adds_bos() const { return add_bos_; }
  // SentencePiece puts a space before the text; a detokenizer drops it from the first token.
  bool adds_space_prefix() const { return add_space_prefix_; }

 private:
  Tokenizer();

  std::vector<std::string> token_bytes_;  // by id
  std::vector<TokenKind> kinds_;          // by id
  absl::flat_hash_map<std::string, int32_t> added_ids_;
  std::unique_ptr<AddedTokenMatcher> all_added_;     // control and user-defined
  std::unique_ptr<AddedTokenMatcher> user_defined_;  // what parse_special = false still finds
  std::unique_ptr<PreTokenizer> pre_tokenizer_;      // null: SentencePiece
  std::unique_ptr<BpeModel> model_;
  bool normalize_nfc_ = false;
  bool add_space_prefix_ = false;
  bool space_prefix_first_only_ = false;
  bool add_bos_ = false;
  bool add_eos_ = false;
  int32_t bos_token_ = -1;
  int32_t eos_token_ = -1;
};

}  // namespace longhaul
