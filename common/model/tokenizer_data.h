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
  std::vector<std::string>
      tokens;  // by id. Byte-level: in GPT-2's printable byte alphabet; SentencePiece: with U+2581
  std::vector<TokenKind> kinds;  // by id, same size
  std::vector<float> scores;     // SentencePiece: higher merges first; empty for byte-level
  std::vector<std::pair<std::string, std::string>> merges;  // byte-level: in order of priority

  // Byte-level: the splitter. A known name ("gpt2", "smollm", "llama-bpe", "qwen2") from GGUF, or
  // from Hugging Face the regexes of its pre_tokenizer sequence.
  std::string pre_tokenizer;
  std::vector<std::string> pre_tokenizer_patterns;
  bool digits_split_single = false;  // Hugging Face "Digits" pre-tokenizer with individual_digits
  bool normalize_nfc = false;        // Qwen2
  bool ignore_merges = false;     // Llama 3: a whole piece that is a token is not built from merges
  bool add_space_prefix = false;  // SentencePiece: U+2581 before the text

  bool add_bos = false;
  bool add_eos = false;
  int32_t bos_token = -1;  // -1: none
  int32_t eos_token = -1;
  int32_t unknown_token = -1;

  std::string chat_template;  // Jinja; empty: the model has none
};

}  // namespace longhaul
