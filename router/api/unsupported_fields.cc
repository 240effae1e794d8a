#include "router/api/unsupported_fields.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "router/api/error.h"

namespace longhaul {
namespace {

namespace json = boost::json;

struct Field {
  const char* name;
  const char* neutral;  // JSON of one more value that asks for nothing; or null
  const char* also_neutral = nullptr;
};

constexpr Field kFields[] = {
    // OpenAI
    {"tools", nullptr},
    {"tool_choice", R"("none")", R"("auto")"},
    {"functions", nullptr},
    {"function_call", R"("none")", R"("auto")"},
    {"response_format", R"({"type":"text"})"},
    {"suffix", R"("")"},
    {"audio", nullptr},
    {"modalities", R"(["text"])"},
    {"prediction", nullptr},
    {"web_search_options", nullptr},
    {"store", nullptr},
    {"reasoning_effort", R"("none")"},
    {"verbosity", R"("medium")"},
    {"service_tier", R"("auto")", R"("default")"},
    // vLLM
    {"prompt_logprobs", nullptr},
    {"logprob_token_ids", nullptr},
    {"allowed_token_ids", nullptr},
    {"bad_words", nullptr},
    {"use_beam_search", nullptr},
    {"length_penalty", "1", "1.0"},
    {"structured_outputs", nullptr},
    {"guided_json", nullptr},
    {"guided_regex", nullptr},
    {"guided_choice", nullptr},
    {"guided_grammar", nullptr},
    {"thinking_token_budget", nullptr},
    {"include_reasoning", "true"},
    {"continue_final_message", nullptr},
    {"documents", nullptr},
    {"chat_template", nullptr},
    {"mm_processor_kwargs", nullptr},
    {"media_io_kwargs", nullptr},
    {"truncate_prompt_tokens", nullptr},
    {"truncation_side", nullptr},
    {"spaces_between_special_tokens", "true"},
    {"prompt_embeds", nullptr},
    {"kv_transfer_params", nullptr},
    {"ec_transfer_params", nullptr},
    {"logits_processors", nullptr},
    // SGLang
    {"json_schema", nullptr},
    {"regex", nullptr},
    {"ebnf", nullptr},
    {"structural_tag", nullptr},
    {"stop_regex", nullptr},
    {"lora_path", nullptr},
    {"session_params", nullptr},
    {"custom_params", nullptr},
    {"custom_logit_processor", nullptr},
    {"return_hidden_states", nullptr},
};

bool IsNeutral(const json::value& value, const Field& field) {
  if (const bool* flag = value.if_bool(); flag != nullptr && !*flag) {
    // Where true asks for nothing, false asks for something.
    return field.neutral == nullptr || absl::string_view(field.neutral) != "true";
  }
  if (const json::array* array = value.if_array(); array != nullptr && array->empty()) return true;
  if (const json::object* object = value.if_object(); object != nullptr && object->empty()) {
    return true;
  }
  if (field.neutral == nullptr) return false;
  return value == json::parse(field.neutral) ||
         (field.also_neutral != nullptr && value == json::parse(field.also_neutral));
}

}  // namespace

absl::Status CheckUnsupportedFields(const JsonReader& reader) {
  for (const Field& field : kFields) {
    const json::value* value = reader.Find(field.name);
    if (value == nullptr || IsNeutral(*value, field)) continue;
    std::string why = "is not supported by this server; leave it out";
    if (field.neutral != nullptr) absl::StrAppend(&why, " or send ", field.neutral);
    return UnsupportedFieldError(reader.Path(field.name), why);
  }
  return absl::OkStatus();
}

}  // namespace longhaul
