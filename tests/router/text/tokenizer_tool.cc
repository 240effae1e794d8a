// tokenizer_tool VOCABULARY [special] [parse]: encodes the texts on standard input, for the tests
// that compare with the reference libraries.
//
// VOCABULARY is a model file as LoadModelFile reads it, or a .json file with the fields of
// TokenizerData. Input: texts, each as a 32-bit length in bytes and the bytes. Output: for each
// text a 32-bit count and the 32-bit ids. Little-endian. "special" adds BOS and EOS, "parse" finds
// control tokens.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "boost/json.hpp"
#include "common/base/status.h"
#include "common/model/model_file.h"
#include "router/text/tokenizer.h"

namespace longhaul {
namespace {

namespace json = boost::json;

std::string StringOf(const json::value& value) { return std::string(value.as_string()); }

bool BoolOf(const json::object& object, const char* name) {
  const json::value* const value = object.if_contains(name);
  return value != nullptr && value->as_bool();
}

int32_t IdOf(const json::object& object, const char* name) {
  const json::value* const value = object.if_contains(name);
  return value == nullptr ? -1 : value->to_number<int32_t>();
}

// The file comes from the test itself, so a field of another type may end the tool.
absl::StatusOr<TokenizerData> ReadJson(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError("cannot open " + path);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  json::error_code error;
  const json::value root = json::parse(text, error);
  if (error) return absl::InvalidArgumentError(path + ": " + error.message());
  const json::object& object = root.as_object();
  TokenizerData data;
  data.model = StringOf(object.at("model")) == "sentencepiece"
                   ? TokenizerData::Model::kSentencePieceBpe
                   : TokenizerData::Model::kByteLevelBpe;
  for (const json::value& token : object.at("tokens").as_array()) {
    data.tokens.push_back(StringOf(token));
  }
  for (const json::value& kind : object.at("kinds").as_array()) {
    data.kinds.push_back(static_cast<TokenKind>(kind.to_number<int>()));
  }
  for (const json::value& score : object.at("scores").as_array()) {
    data.scores.push_back(score.to_number<float>());
  }
  for (const json::value& merge : object.at("merges").as_array()) {
    data.merges.emplace_back(StringOf(merge.at(0)), StringOf(merge.at(1)));
  }
  data.pre_tokenizer = StringOf(object.at("pre_tokenizer"));
  for (const json::value& pattern : object.at("pre_tokenizer_patterns").as_array()) {
    data.pre_tokenizer_patterns.push_back(StringOf(pattern));
  }
  data.digits_split_single = BoolOf(object, "digits_split_single");
  data.normalize_nfc = BoolOf(object, "normalize_nfc");
  data.ignore_merges = BoolOf(object, "ignore_merges");
  data.add_space_prefix = BoolOf(object, "add_space_prefix");
  data.space_prefix_first_only = BoolOf(object, "space_prefix_first_only");
  data.add_bos = BoolOf(object, "add_bos");
  data.add_eos = BoolOf(object, "add_eos");
  data.bos_token = IdOf(object, "bos_token");
  data.eos_token = IdOf(object, "eos_token");
  data.unknown_token = IdOf(object, "unknown_token");
  return data;
}

absl::StatusOr<TokenizerData> ReadVocabulary(const std::string& path) {
  if (absl::EndsWith(path, ".json")) return ReadJson(path);
  LH_ASSIGN_OR_RETURN(ModelFile file, LoadModelFile(path));
  return std::move(file.tokenizer);
}

bool ReadAll(void* data, size_t bytes) { return std::fread(data, 1, bytes, stdin) == bytes; }

absl::Status Run(const std::string& path, bool add_special, bool parse_special) {
  LH_ASSIGN_OR_RETURN(const TokenizerData data, ReadVocabulary(path));
  LH_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Make(data));
  std::string text;
  uint32_t bytes = 0;
  while (ReadAll(&bytes, sizeof(bytes))) {
    text.resize(bytes);
    if (!ReadAll(text.data(), bytes)) return absl::DataLossError("standard input ends in a text");
    const std::vector<int32_t> ids = tokenizer->Encode(text, add_special, parse_special);
    const uint32_t count = static_cast<uint32_t>(ids.size());
    std::fwrite(&count, sizeof(count), 1, stdout);
    std::fwrite(ids.data(), sizeof(int32_t), ids.size(), stdout);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  bool add_special = false;
  bool parse_special = false;
  for (int i = 2; i < argc; ++i) {
    add_special = add_special || absl::string_view(argv[i]) == "special";
    parse_special = parse_special || absl::string_view(argv[i]) == "parse";
  }
  if (argc < 2) {
    std::fprintf(stderr, "usage: tokenizer_tool VOCABULARY [special] [parse]\n");
    return 2;
  }
  const absl::Status status = longhaul::Run(argv[1], add_special, parse_special);
  if (status.ok()) return 0;
  std::fprintf(stderr, "tokenizer_tool: %s\n", status.ToString().c_str());
  return 1;
}
