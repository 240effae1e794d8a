// Cuts a template into tokens, as Jinja does with trim_blocks and lstrip_blocks on.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul::jinja {

struct Token {
  enum class Kind : uint8_t {
    kData,  // text outside of tags
    kBlockBegin,
    kBlockEnd,
    kOutputBegin,
    kOutputEnd,
    kName,
    kString,  // escapes resolved
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  int line = 1;
};

// The last token is kEnd.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

// "chat template, line N: what"
absl::Status TemplateError(int line, absl::string_view what);

}  // namespace longhaul::jinja
