#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/mapped_file.h"
#include "common/base/status.h"
#include "common/model/hugging_face.h"
#include "common/model/hugging_face_pipeline.h"
#include "common/model/json_fields.h"

namespace longhaul {
namespace {

std::string Shown(absl::string_view token) {
  return absl::StrCat("\"", absl::CHexEscape(token.substr(0, 80)), "\"");
}

// "<0x0A>"
bool IsByteToken(absl::string_view token) {
  return token.size() == 6 && token.substr(0, 3) == "<0x" && token[5] == '>' &&
         absl::ascii_isxdigit(token[3]) && absl::ascii_isxdigit(token[4]);
}

class TokenizerReader {
 public:
  TokenizerReader(const JsonFields& root, int64_t vocab) : root_(root), vocab_(vocab) {}

  absl::StatusOr<TokenizerData> Run() {
    LH_ASSIGN_OR_RETURN(const JsonFields model, root_.Object("model"));
    LH_RETURN_IF_ERROR(CheckModel(model));
    LH_RETURN_IF_ERROR(ReadTextSteps(root_, &data_));
    LH_RETURN_IF_ERROR(ReadVocab(model));
    LH_RETURN_IF_ERROR(ReadAddedTokens());
    LH_RETURN_IF_ERROR(ReadMerges(model));
    LH_RETURN_IF_ERROR(ReadPostProcessor(root_, &data_));
    return std::move(data_);
  }

 private:
  absl::Status CheckModel(const JsonFields& model) {
    LH_ASSIGN_OR_RETURN(const absl::string_view type, model.TextOr("type", "BPE"));
    if (type != "BPE") {
      return model.Error(
          absl::StrCat("is of type ", type.substr(0, 80), "; only BPE is supported"));
    }
    for (const absl::string_view affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      LH_ASSIGN_OR_RETURN(const absl::string_view text, model.TextOr(affix, ""));
      if (!text.empty()) return model.Error(absl::StrCat(affix, " is not supported"));
    }
    LH_ASSIGN_OR_RETURN(data_.ignore_merges, model.BoolOr("ignore_merges", false));
    LH_ASSIGN_OR_RETURN(byte_fallback_, model.BoolOr("byte_fallback", false));
    return absl::OkStatus();
  }

  // Ids stay below the rows of the embedding, which bounds what a hostile id can allocate.
  absl::Status Place(const JsonFields& fields, absl::string_view text, int64_t id, TokenKind kind) {
    if (id < 0 || id >= vocab_) {
      return fields.Error(absl::StrCat("token ", Shown(text), " has id ", id, "; 0 to ", vocab_ - 1,
                                       " (the embedding's rows) is valid"));
    }
    const auto index = static_cast<size_t>(id);
    if (index >= data_.tokens.size()) {
      data_.tokens.resize(index + 1);
      data_.kinds.resize(index + 1, TokenKind::kUnused);
    }
    if (data_.kinds[index] != TokenKind::kUnused && data_.tokens[index] != text) {
      return fields.Error(absl::StrCat("tokens ", Shown(data_.tokens[index]), " and ", Shown(text),
                                       " have the same id ", id));
    }
    data_.tokens[index] = std::string(text);
    data_.kinds[index] = kind;
    return absl::OkStatus();
  }

  absl::Status ReadVocab(const JsonFields& model) {
    LH_ASSIGN_OR_RETURN(const JsonFields vocab, model.Object("vocab"));
    LH_ASSIGN_OR_RETURN(const absl::string_view unknown, model.TextOr("unk_token", ""));
    const bool sentence_piece = data_.model == TokenizerData::Model::kSentencePieceBpe;
    for (const auto& item : vocab.object()) {
      const absl::string_view text(item.key().data(), item.key().size());
      if (!item.value().is_int64()) {
        return vocab.Error(absl::StrCat("the id of token ", Shown(text), " is not an integer"));
      }
      const int64_t id = item.value().get_int64();
      const bool is_byte = sentence_piece && byte_fallback_ && IsByteToken(text);
      LH_RETURN_IF_ERROR(Place(vocab, text, id, is_byte ? TokenKind::kByte : TokenKind::kNormal));
      if (!unknown.empty() && text == unknown) data_.unknown_token = static_cast<int32_t>(id);
    }
    if (data_.tokens.empty()) return vocab.Error("is empty");
    return absl::OkStatus();
  }

  absl::Status ReadAddedTokens() {
    if (root_.Find("added_tokens") == nullptr) return absl::OkStatus();
    LH_ASSIGN_OR_RETURN(const boost::json::array* added, root_.Array("added_tokens"));
    for (size_t i = 0; i < added->size(); ++i) {
      LH_ASSIGN_OR_RETURN(
          const JsonFields token,
          JsonFields::Make((*added)[i], absl::StrCat(root_.where(), ": added_tokens[", i, "]")));
      LH_ASSIGN_OR_RETURN(const absl::string_view text, token.Text("content"));
      LH_ASSIGN_OR_RETURN(const int64_t id, token.Integer("id", 0, vocab_ - 1));
      LH_ASSIGN_OR_RETURN(const bool special, token.BoolOr("special", false));
      for (const absl::string_view flag : {"single_word", "lstrip", "rstrip"}) {
        LH_ASSIGN_OR_RETURN(const bool set, token.BoolOr(flag, false));
        if (set) {
          return token.Error(absl::StrCat(flag, " of token ", Shown(text), " is not supported"));
        }
      }
      LH_RETURN_IF_ERROR(
          Place(token, text, id, special ? TokenKind::kControl : TokenKind::kUserDefined));
    }
    return absl::OkStatus();
  }

  // "a b" in older files, ["a", "b"] in newer ones.
  absl::Status ReadMerges(const JsonFields& model) {
    LH_ASSIGN_OR_RETURN(const boost::json::array* merges, model.Array("merges"));
    data_.merges.reserve(merges->size());
    for (size_t i = 0; i < merges->size(); ++i) {
      absl::string_view left, right;
      if (const boost::json::string* text = (*merges)[i].if_string(); text != nullptr) {
        const absl::string_view merge = TextOf(*text);
        const size_t space = merge.find(' ');
        if (space != absl::string_view::npos && merge.find(' ', space + 1) == merge.npos) {
          left = merge.substr(0, space);
          right = merge.substr(space + 1);
        }
      } else if (const boost::json::array* pair = (*merges)[i].if_array();
                 pair != nullptr && pair->size() == 2 && pair->at(0).is_string() &&
                 pair->at(1).is_string()) {
        left = TextOf(pair->at(0).get_string());
        right = TextOf(pair->at(1).get_string());
      }
      if (left.empty() || right.empty()) {
        return model.Error(absl::StrCat("merges[", i, "] is not a pair of pieces"));
      }
      data_.merges.emplace_back(left, right);
    }
    return absl::OkStatus();
  }

  const JsonFields& root_;
  const int64_t vocab_;
  bool byte_fallback_ = false;
  TokenizerData data_;
};

// tokenizer_config.json: special tokens by their text, the chat template, who adds BOS and EOS.
class TokenizerConfigReader {
 public:
  TokenizerConfigReader(const JsonFields& fields, TokenizerData* data)
      : fields_(fields), data_(*data) {}

  absl::Status Run() {
    LH_RETURN_IF_ERROR(ReadToken("bos_token", &data_.bos_token));
    LH_RETURN_IF_ERROR(ReadToken("eos_token", &data_.eos_token));
    LH_RETURN_IF_ERROR(ReadToken("unk_token", &data_.unknown_token));
    LH_ASSIGN_OR_RETURN(data_.add_bos, fields_.BoolOr("add_bos_token", data_.add_bos));
    LH_ASSIGN_OR_RETURN(data_.add_eos, fields_.BoolOr("add_eos_token", data_.add_eos));
    if ((data_.add_bos && data_.bos_token < 0) || (data_.add_eos && data_.eos_token < 0)) {
      return fields_.Error("add_bos_token or add_eos_token is set, but no such token is named");
    }
    return ReadChatTemplate();
  }

 private:
  // "<s>" or {"content": "<s>", ...}; stays as it is when absent.
  absl::Status ReadToken(absl::string_view name, int32_t* id) {
    const boost::json::value* value = fields_.Find(name);
    if (value == nullptr) return absl::OkStatus();
    absl::string_view text;
    if (value->is_object()) {
      LH_ASSIGN_OR_RETURN(const JsonFields token, fields_.Object(name));
      LH_ASSIGN_OR_RETURN(text, token.Text("content"));
    } else {
      LH_ASSIGN_OR_RETURN(text, fields_.Text(name));
    }
    // Added tokens come last, and among equals they are the ones meant.
    for (size_t i = data_.tokens.size(); i-- > 0;) {
      if (data_.tokens[i] == text && data_.kinds[i] != TokenKind::kUnused) {
        *id = static_cast<int32_t>(i);
        return absl::OkStatus();
      }
    }
    return fields_.Error(absl::StrCat(name, " ", Shown(text), " is not in tokenizer.json"));
  }

  // A template, or a list of named ones, of which "default" is for plain conversations.
  absl::Status ReadChatTemplate() {
    const boost::json::value* value = fields_.Find("chat_template");
    if (value == nullptr) return absl::OkStatus();
    if (!value->is_array()) {
      LH_ASSIGN_OR_RETURN(const absl::string_view text, fields_.Text("chat_template"));
      data_.chat_template = std::string(text);
      return absl::OkStatus();
    }
    for (const boost::json::value& item : value->get_array()) {
      LH_ASSIGN_OR_RETURN(const JsonFields entry,
                          JsonFields::Make(item, fields_.where() + ": chat_template"));
      LH_ASSIGN_OR_RETURN(const absl::string_view name, entry.Text("name"));
      if (name != "default") continue;
      LH_ASSIGN_OR_RETURN(const absl::string_view text, entry.Text("template"));
      data_.chat_template = std::string(text);
      return absl::OkStatus();
    }
    return fields_.Error("chat_template is a list in which none is named default");
  }

  const JsonFields& fields_;
  TokenizerData& data_;
};

// A template in a file of its own wins over the one in tokenizer_config.json.
absl::Status ReadChatTemplateFile(const std::string& folder, TokenizerData* data) {
  const std::string path = folder + "/chat_template.jinja";
  const auto file = MappedFile::Open(path);
  if (absl::IsNotFound(file.status())) return absl::OkStatus();
  LH_RETURN_IF_ERROR(file.status());
  const absl::Span<const std::byte> bytes = (*file)->bytes();
  if (bytes.size() > static_cast<size_t>(kConfigBytesMax)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has ", bytes.size(), " bytes; at most ",
                                                   kConfigBytesMax, " are read"));
  }
  data->chat_template.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerData> TokenizerFromHuggingFace(const std::string& folder, int64_t vocab) {
  const std::string path = folder + "/tokenizer.json";
  const absl::StatusOr<boost::json::value> root = ParseJsonFile(path, kTokenizerBytesMax);
  if (absl::IsNotFound(root.status())) {
    return absl::NotFoundError(absl::StrCat(
        path, " is missing; save the fast tokenizer of the model (tokenizer.model alone is not ",
        "read) or use a GGUF file"));
  }
  LH_RETURN_IF_ERROR(root.status());
  LH_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Make(*root, path));
  LH_ASSIGN_OR_RETURN(TokenizerData data, TokenizerReader(fields, vocab).Run());

  const std::string config_path = folder + "/tokenizer_config.json";
  const absl::StatusOr<boost::json::value> config = ParseJsonFile(config_path, kConfigBytesMax);
  if (!absl::IsNotFound(config.status())) {
    LH_RETURN_IF_ERROR(config.status());
    LH_ASSIGN_OR_RETURN(const JsonFields more, JsonFields::Make(*config, config_path));
    LH_RETURN_IF_ERROR(TokenizerConfigReader(more, &data).Run());
  }
  LH_RETURN_IF_ERROR(ReadChatTemplateFile(folder, &data));
  return data;
}

}  // namespace longhaul
