#include "common/model/hugging_face_pipeline.h"

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

constexpr absl::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

// A step, or the steps of a (nested) Sequence in order; nothing when the field is absent.
absl::Status Flatten(const JsonFields& parent, absl::string_view name, absl::string_view list_name,
                     std::vector<JsonFields>* steps) {
  if (parent.Find(name) == nullptr) return absl::OkStatus();
  LH_ASSIGN_OR_RETURN(const JsonFields step, parent.Object(name));
  LH_ASSIGN_OR_RETURN(const absl::string_view type, step.Text("type"));
  if (type != "Sequence") {
    steps->push_back(step);
    return absl::OkStatus();
  }
  LH_ASSIGN_OR_RETURN(const boost::json::array* list, step.Array(list_name));
  for (size_t i = 0; i < list->size(); ++i) {
    LH_ASSIGN_OR_RETURN(const JsonFields inner,
                        JsonFields::Make((*list)[i], absl::StrCat(step.where(), "[", i, "]")));
    LH_ASSIGN_OR_RETURN(const absl::string_view inner_type, inner.Text("type"));
    if (inner_type == "Sequence") return inner.Error("a Sequence within one is not supported");
    steps->push_back(inner);
  }
  return absl::OkStatus();
}

absl::Status Unsupported(const JsonFields& step, absl::string_view what) {
  return step.Error(absl::StrCat(what, " is not supported; use a GGUF file of the model"));
}

// The regex that matches exactly `text`.
std::string Quoted(absl::string_view text) {
  std::string regex;
  for (const char c : text) {
    if (absl::ascii_isascii(c) && !absl::ascii_isalnum(c)) regex.push_back('\\');
    regex.push_back(c);
  }
  return regex;
}

class TextSteps {
 public:
  explicit TextSteps(TokenizerData* data) : data_(*data) {}

  absl::Status Run(const JsonFields& root) {
    std::vector<JsonFields> steps;
    LH_RETURN_IF_ERROR(Flatten(root, "normalizer", "normalizers", &steps));
    for (const JsonFields& step : steps) LH_RETURN_IF_ERROR(Normalizer(step));
    steps.clear();
    LH_RETURN_IF_ERROR(Flatten(root, "pre_tokenizer", "pretokenizers", &steps));
    for (const JsonFields& step : steps) LH_RETURN_IF_ERROR(PreTokenizer(step));
    if (byte_level_ == marks_spaces_) {
      return root.Error(absl::StrCat(
          "its steps are ", byte_level_ ? "both" : "neither", " byte-level (a ByteLevel step) ",
          byte_level_ ? "and" : "nor",
          " SentencePiece-like (a step that makes spaces U+2581); one of them is supported"));
    }
    data_.model =
        byte_level_ ? TokenizerData::Model::kByteLevelBpe : TokenizerData::Model::kSentencePieceBpe;
    if (marks_spaces_ && cuts_) {
      return root.Error("cuts SentencePiece text with regexes, which is not supported");
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Normalizer(const JsonFields& step) {
    LH_ASSIGN_OR_RETURN(const absl::string_view type, step.Text("type"));
    if (type == "NFC") {
      data_.normalize_nfc = true;
      return absl::OkStatus();
    }
    if (type == "Prepend") {
      LH_ASSIGN_OR_RETURN(const absl::string_view text, step.Text("prepend"));
      if (text != kSpaceMark) return Unsupported(step, "prepending other text than U+2581");
      data_.add_space_prefix = true;
      return absl::OkStatus();
    }
    if (type == "Replace") {
      LH_ASSIGN_OR_RETURN(const JsonFields pattern, step.Object("pattern"));
      LH_ASSIGN_OR_RETURN(const absl::string_view from, pattern.TextOr("String", ""));
      LH_ASSIGN_OR_RETURN(const absl::string_view to, step.Text("content"));
      if (from != " " || to != kSpaceMark) {
        return Unsupported(step, "replacing other text than spaces by U+2581");
      }
      marks_spaces_ = true;
      return absl::OkStatus();
    }
    return Unsupported(step, absl::StrCat("the normalizer ", type.substr(0, 80)));
  }

  absl::Status PreTokenizer(const JsonFields& step) {
    LH_ASSIGN_OR_RETURN(const absl::string_view type, step.Text("type"));
    if (type == "ByteLevel") return ByteLevel(step);
    if (byte_level_) {
      return Unsupported(step, absl::StrCat("the step ", type.substr(0, 80), " after ByteLevel"));
    }
    if (type == "Metaspace") return Metaspace(step);
    cuts_ = true;
    if (type == "Split") return Split(step);
    if (type == "Digits") {
      LH_ASSIGN_OR_RETURN(const bool single, step.BoolOr("individual_digits", false));
      if (!single) {
        data_.pre_tokenizer_patterns.emplace_back("\\p{N}+");
      } else if (data_.pre_tokenizer_patterns.empty()) {
        data_.digits_split_single = true;
      } else {
        data_.pre_tokenizer_patterns.emplace_back("\\p{N}");
      }
      return absl::OkStatus();
    }
    return Unsupported(step, absl::StrCat("the pre-tokenizer ", type.substr(0, 80)));
  }

  absl::Status ByteLevel(const JsonFields& step) {
    byte_level_ = true;
    LH_ASSIGN_OR_RETURN(const bool prefix, step.BoolOr("add_prefix_space", true));
    if (prefix) return Unsupported(step, "add_prefix_space of ByteLevel");
    LH_ASSIGN_OR_RETURN(const bool regex, step.BoolOr("use_regex", true));
    if (regex) data_.pre_tokenizer = "gpt2";
    return absl::OkStatus();
  }

  absl::Status Metaspace(const JsonFields& step) {
    marks_spaces_ = true;
    LH_ASSIGN_OR_RETURN(const absl::string_view mark, step.TextOr("replacement", kSpaceMark));
    if (mark != kSpaceMark) return Unsupported(step, "another replacement than U+2581");
    LH_ASSIGN_OR_RETURN(const bool legacy, step.BoolOr("add_prefix_space", true));
    LH_ASSIGN_OR_RETURN(const absl::string_view scheme,
                        step.TextOr("prepend_scheme", legacy ? "always" : "never"));
    if (scheme != "always" && scheme != "first" && scheme != "never") {
      return Unsupported(step, absl::StrCat("the prepend_scheme ", scheme.substr(0, 80)));
    }
    data_.add_space_prefix = scheme != "never";
    data_.space_prefix_first_only = scheme == "first";
    return absl::OkStatus();
  }

  absl::Status Split(const JsonFields& step) {
    LH_ASSIGN_OR_RETURN(const JsonFields pattern, step.Object("pattern"));
    LH_ASSIGN_OR_RETURN(const absl::string_view behavior, step.Text("behavior"));
    LH_ASSIGN_OR_RETURN(const bool invert, step.BoolOr("invert", false));
    // "Removed" with `invert` keeps the matches only; the regexes that it is used with match all of
    // a text, so that it is the same as "Isolated".
    if (behavior != "Isolated" && !(behavior == "Removed" && invert)) {
      return Unsupported(step, absl::StrCat("the behavior ", behavior.substr(0, 80)));
    }
    if (pattern.Find("Regex") != nullptr) {
      LH_ASSIGN_OR_RETURN(const absl::string_view regex, pattern.Text("Regex"));
      data_.pre_tokenizer_patterns.emplace_back(regex);
    } else {
      LH_ASSIGN_OR_RETURN(const absl::string_view text, pattern.Text("String"));
      data_.pre_tokenizer_patterns.push_back(Quoted(text));
    }
    return absl::OkStatus();
  }

  TokenizerData& data_;
  bool byte_level_ = false;
  bool marks_spaces_ = false;
  bool cuts_ = false;
};

// One TemplateProcessing's "single": special tokens before and after the text.
absl::Status ReadTemplate(const JsonFields& step, TokenizerData* data) {
  LH_ASSIGN_OR_RETURN(const boost::json::array* parts, step.Array("single"));
  LH_ASSIGN_OR_RETURN(const JsonFields special, step.Object("special_tokens"));
  bool after_text = false;
  for (size_t i = 0; i < parts->size(); ++i) {
    LH_ASSIGN_OR_RETURN(
        const JsonFields part,
        JsonFields::Make((*parts)[i], absl::StrCat(step.where(), ": single[", i, "]")));
    if (part.Find("Sequence") != nullptr) {
      if (after_text) return Unsupported(part, "a text that occurs twice");
      after_text = true;
      continue;
    }
    LH_ASSIGN_OR_RETURN(const JsonFields token, part.Object("SpecialToken"));
    LH_ASSIGN_OR_RETURN(const absl::string_view name, token.Text("id"));
    LH_ASSIGN_OR_RETURN(const JsonFields entry, special.Object(name));
    LH_ASSIGN_OR_RETURN(const boost::json::array* ids, entry.Array("ids"));
    bool& adds = after_text ? data->add_eos : data->add_bos;
    const bool one = ids->size() == 1 && ids->front().is_int64() && !adds;
    if (!one) return Unsupported(part, "more than one special token on a side of the text");
    const int64_t id = ids->front().get_int64();
    if (id < 0 || id >= static_cast<int64_t>(data->tokens.size())) {
      return entry.Error(
          absl::StrCat("has the id ", id, " but there are ", data->tokens.size(), " tokens"));
    }
    adds = true;
    (after_text ? data->eos_token : data->bos_token) = static_cast<int32_t>(id);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadTextSteps(const JsonFields& root, TokenizerData* data) {
  return TextSteps(data).Run(root);
}

absl::Status ReadPostProcessor(const JsonFields& root, TokenizerData* data) {
  std::vector<JsonFields> steps;
  LH_RETURN_IF_ERROR(Flatten(root, "post_processor", "processors", &steps));
  for (const JsonFields& step : steps) {
    LH_ASSIGN_OR_RETURN(const absl::string_view type, step.Text("type"));
    if (type == "TemplateProcessing") {
      LH_RETURN_IF_ERROR(ReadTemplate(step, data));
    } else if (type != "ByteLevel") {  // ByteLevel only trims offsets
      return Unsupported(step, absl::StrCat("the post-processor ", type.substr(0, 80)));
    }
  }
  return absl::OkStatus();
}

}  // namespace longhaul
