// The fields of OpenAI's, vLLM's and SGLang's APIs that this server knows and cannot honour. Asking
// for one is refused by name: an answer that silently left it out would be a wrong answer.
#pragma once

#include "absl/status/status.h"
#include "router/api/json_reader.h"

namespace longhaul {

// The first such field of `reader`'s object that asks for something. Neutral values (null, false,
// an empty array or object, and each field's own "do nothing" value) pass.
absl::Status CheckUnsupportedFields(const JsonReader& reader);

}  // namespace longhaul
