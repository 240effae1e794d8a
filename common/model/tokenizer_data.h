// A tokenizer's vocabulary and rules as read from a model file; router/text makes the tokenizer
// from it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace longhaul {

enum class TokenKind : uint8_t { kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct TokenizerData {
  enum class Model : uint8_t { kByteLevelBpe, kSentencePieceBpe };

  Model model = Model::kByteLevelBpe;
  // By id. Byte-level: kNormal tokens in GPT-2's printable byte alphabet; SentencePiece: with
  // U+2581 for a space and kByte tokens as "<0x0A>". All other kinds as plain text.
  std::vector<std::string> tokens;
  std::vector<TokenKind> kinds;  // by id, same size
  // SentencePiece from GGUF: by id, higher merges first. Empty: the order of `merges` decides
  // (byte- level always, and SentencePiece vocabularies from tokenizer.json).
  std::vector<float> scores;
  std::vector<std::pair<std::string, std::string>> merges;  // in order of priority

  // Byte-level: how a text is cut into pieces, each step cutting the pieces of the one before:
  // single digits, then each of the patterns (matches and the gaps between them become pieces),
  // then the named splitter. From GGUF the name only ("gpt2", "smollm", "llama-bpe", "qwen2", ...:
  // router/text/pre_tokenizer.cc lists them; a name may imply digits, NFC and ignore_merges). From
  // tokenizer.json: "Digits" sets digits_split_single, each "Split" adds a pattern, "ByteLevel"
  // with use_regex sets the name "gpt2" and without leaves it empty.
  std::string pre_tokenizer;
  std::vector<std::string> pre_tokenizer_patterns;
  bool digits_split_single = false;  // Hugging Face "Digits" pre-tokenizer with individual_digits
  bool normalize_nfc = false;        // Qwen2
  bool ignore_merges = false;  // Llama 3: a whole piece that is a token is not built from merges
  // SentencePiece: U+2581 before the text; after an added token again, unless only the first.
  bool add_space_prefix = false;
  bool space_prefix_first_only = false;

  bool add_bos = false;
  bool add_eos = false;
  int32_t bos_token = -1;  // -1: none
  int32_t eos_token = -1;
  int32_t unknown_token = -1;

  std::string chat_template;  // Jinja; empty: the model has none
};

}  // namespace longhaul
