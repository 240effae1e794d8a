#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/model/gguf_model.h"
#include "common/model/model_checks.h"

namespace longhaul {
namespace {

absl::StatusOr<const GgufValue*> StringArray(const GgufFile& file, absl::string_view key) {
  const GgufValue* value = file.Find(key);
  if (value == nullptr || value->type != GgufType::kArray ||
      (value->element_type != GgufType::kString && value->count != 0)) {
    return file.Error(absl::StrCat("key ", key, " is not an array of strings; the file has no ",
                                   "tokenizer or another kind of it: convert the model again"));
  }
  return value;
}

// An array of plain values with one element a token.
absl::Status CheckPerToken(const GgufFile& file, absl::string_view key, const GgufValue& value,
                           bool type_ok, size_t tokens) {
  if (value.type == GgufType::kArray && type_ok && value.count == tokens) return absl::OkStatus();
  return file.Error(absl::StrCat("key ", key, " has ", value.count, " elements of ",
                                 GgufTypeName(value.element_type), " for ", tokens, " tokens"));
}

absl::StatusOr<std::vector<TokenKind>> ReadKinds(const GgufFile& file, size_t tokens) {
  constexpr absl::string_view kKey = "tokenizer.ggml.token_type";
  std::vector<TokenKind> kinds(tokens, TokenKind::kNormal);
  const GgufValue* value = file.Find(kKey);
  if (value == nullptr) return kinds;
  LH_RETURN_IF_ERROR(CheckPerToken(file, kKey, *value, GgufIsInteger(value->element_type), tokens));
  const size_t width = GgufScalarBytes(value->element_type);
  for (size_t i = 0; i < tokens; ++i) {
    int64_t kind = 0;
    const bool fits = GgufReadInteger(value->element_type, value->elements + i * width, &kind);
    if (!fits || kind < 0 || kind > 6) {
      return file.Error(absl::StrCat("key ", kKey, "[", i, "] is ", kind, "; 0 to 6 is valid"));
    }
    // 0 is "undefined" and counts as 1, normal; the rest is TokenKind's order.
    kinds[i] = static_cast<TokenKind>(std::max<int64_t>(kind, 1) - 1);
  }
  return kinds;
}

absl::StatusOr<std::vector<float>> ReadScores(const GgufFile& file, size_t tokens) {
  constexpr absl::string_view kKey = "tokenizer.ggml.scores";
  const GgufValue* value = file.Find(kKey);
  if (value == nullptr) {
    return file.Error(
        absl::StrCat("key ", kKey, " is missing; a SentencePiece tokenizer needs it"));
  }
  LH_RETURN_IF_ERROR(
      CheckPerToken(file, kKey, *value, value->element_type == GgufType::kF32, tokens));
  std::vector<float> scores(tokens);
  std::copy_n(value->elements, tokens * sizeof(float), reinterpret_cast<std::byte*>(scores.data()));
  for (size_t i = 0; i < tokens; ++i) {
    if (scores[i] != scores[i]) {
      return file.Error(absl::StrCat("key ", kKey, "[", i, "] is not a number"));
    }
  }
  return scores;
}

absl::Status ReadMerges(const GgufFile& file, TokenizerData* tokenizer) {
  constexpr absl::string_view kKey = "tokenizer.ggml.merges";
  LH_ASSIGN_OR_RETURN(const GgufValue* value, StringArray(file, kKey));
  tokenizer->merges.reserve(value->strings.size());
  for (size_t i = 0; i < value->strings.size(); ++i) {
    const absl::string_view merge = value->strings[i];
    const size_t space = merge.find(' ', 1);
    if (space == absl::string_view::npos || space + 1 == merge.size()) {
      return file.Error(absl::StrCat("key ", kKey, "[", i, "] is \"",
                                     absl::CHexEscape(merge.substr(0, 80)),
                                     "\"; two pieces with a space between are valid"));
    }
    tokenizer->merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> TokenId(const GgufFile& file, absl::string_view key, size_t tokens) {
  const GgufValue* value = file.Find(key);
  if (value == nullptr) return -1;
  int64_t id = 0;
  // Converters write 2^32 - 1 or -1 for "none".
  if (GgufIsInteger(value->type) && GgufReadInteger(value->type, value->scalar, &id) &&
      (id == -1 || id == std::numeric_limits<uint32_t>::max())) {
    return -1;
  }
  LH_ASSIGN_OR_RETURN(id, file.Integer(key, 0, static_cast<int64_t>(tokens) - 1));
  return static_cast<int32_t>(id);
}

// The family whose texts begin with BOS although its files may not say so.
bool IsLlama3(absl::string_view pre) {
  return pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3" || pre == "pixtral" ||
         pre == "falcon3";
}

}  // namespace

absl::StatusOr<TokenizerData> TokenizerFromGguf(const GgufFile& file,
                                                std::vector<int32_t>* eos_tokens) {
  TokenizerData tokenizer;
  LH_ASSIGN_OR_RETURN(const absl::string_view model, file.Text("tokenizer.ggml.model"));
  if (model == "gpt2") {
    tokenizer.model = TokenizerData::Model::kByteLevelBpe;
  } else if (model == "llama") {
    tokenizer.model = TokenizerData::Model::kSentencePieceBpe;
  } else {
    return file.Error(absl::StrCat("has a tokenizer of model \"", absl::CHexEscape(model),
                                   "\"; supported are gpt2 (byte-level BPE) and llama ",
                                   "(SentencePiece BPE)"));
  }
  const bool sentence_piece = tokenizer.model == TokenizerData::Model::kSentencePieceBpe;

  LH_ASSIGN_OR_RETURN(const GgufValue* tokens, StringArray(file, "tokenizer.ggml.tokens"));
  const size_t count = tokens->strings.size();
  if (count == 0 || count > static_cast<size_t>(kVocabMax)) {
    return file.Error(absl::StrCat("has ", count, " tokens; 1 to ", kVocabMax, " are supported"));
  }
  tokenizer.tokens.reserve(count);
  for (const absl::string_view token : tokens->strings) tokenizer.tokens.emplace_back(token);
  LH_ASSIGN_OR_RETURN(tokenizer.kinds, ReadKinds(file, count));
  if (sentence_piece) {
    LH_ASSIGN_OR_RETURN(tokenizer.scores, ReadScores(file, count));
  } else {
    LH_RETURN_IF_ERROR(ReadMerges(file, &tokenizer));
    LH_ASSIGN_OR_RETURN(const absl::string_view pre, file.TextOr("tokenizer.ggml.pre", "default"));
    tokenizer.pre_tokenizer = std::string(pre);
  }
  LH_ASSIGN_OR_RETURN(tokenizer.add_space_prefix,
                      file.BoolOr("tokenizer.ggml.add_space_prefix", sentence_piece));
  LH_ASSIGN_OR_RETURN(tokenizer.bos_token, TokenId(file, "tokenizer.ggml.bos_token_id", count));
  LH_ASSIGN_OR_RETURN(tokenizer.eos_token, TokenId(file, "tokenizer.ggml.eos_token_id", count));
  LH_ASSIGN_OR_RETURN(tokenizer.unknown_token,
                      TokenId(file, "tokenizer.ggml.unknown_token_id", count));
  LH_ASSIGN_OR_RETURN(tokenizer.add_bos,
                      file.BoolOr("tokenizer.ggml.add_bos_token",
                                  tokenizer.bos_token >= 0 &&
                                      (sentence_piece || IsLlama3(tokenizer.pre_tokenizer))));
  LH_ASSIGN_OR_RETURN(tokenizer.add_eos, file.BoolOr("tokenizer.ggml.add_eos_token", false));
  LH_ASSIGN_OR_RETURN(const absl::string_view chat_template,
                      file.TextOr("tokenizer.chat_template", ""));
  tokenizer.chat_template = std::string(chat_template);

  LH_ASSIGN_OR_RETURN(const int32_t eot, TokenId(file, "tokenizer.ggml.eot_token_id", count));
  LH_ASSIGN_OR_RETURN(const int32_t eom, TokenId(file, "tokenizer.ggml.eom_token_id", count));
  *eos_tokens = EndTokens(tokenizer, {tokenizer.eos_token, eot, eom});
  return tokenizer;
}

}  // namespace longhaul
