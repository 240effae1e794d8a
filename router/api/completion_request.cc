#include "router/api/completion_request.h"

#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "router/api/chat_messages.h"
#include "router/api/error.h"
#include "router/api/json_reader.h"
#include "router/api/json_with_ids.h"
#include "router/api/unsupported_fields.h"

namespace longhaul {
namespace {

namespace json = boost::json;

constexpr int64_t kNoMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kTokensMax = std::numeric_limits<int32_t>::max();
constexpr int64_t kDefaultTextOutputTokens = 16;  // what OpenAI's /v1/completions does

void ReadStop(JsonReader& in, const ApiLimits& limits, CompletionRequest* out) {
  const json::value* stop = in.Find("stop");
  if (stop == nullptr) return;
  auto add = [&](const json::value& value, absl::string_view param) {
    const json::string* text = value.if_string();
    if (text == nullptr) {
      return in.Fail(InvalidFieldError(
          param,
          absl::StrCat("must be a string or an array of strings, not ", JsonKindName(value))));
    }
    if (text->empty() || text->size() > limits.stop_bytes_max) {
      return in.Fail(
          InvalidFieldError(param, absl::StrCat("must have from 1 to ", limits.stop_bytes_max,
                                                " bytes, got ", text->size())));
    }
    out->stop.emplace_back(text->data(), text->size());
  };
  if (!stop->is_array()) return add(*stop, "stop");
  const json::array& array = stop->get_array();
  if (static_cast<int64_t>(array.size()) > limits.stop_strings_max) {
    return in.Fail(
        InvalidFieldError("stop", absl::StrCat("must hold at most ", limits.stop_strings_max,
                                               " strings, got ", array.size())));
  }
  for (size_t i = 0; i < array.size(); ++i) add(array[i], absl::StrCat("stop[", i, "]"));
}

void ReadLogitBias(JsonReader& in, const ApiLimits& limits, CompletionRequest* out) {
  const json::value* bias = in.Find("logit_bias");
  if (bias == nullptr) return;
  if (!bias->is_object()) {
    return in.Fail(InvalidFieldError("logit_bias",
                                     absl::StrCat("must be an object, not ", JsonKindName(*bias))));
  }
  const int64_t end = limits.vocabulary_tokens > 0 ? limits.vocabulary_tokens : kTokensMax;
  JsonReader entries(bias->get_object(), "logit_bias.");
  for (const json::key_value_pair& entry : bias->get_object()) {
    const absl::string_view key(entry.key().data(), entry.key().size());
    int64_t token = -1;
    if (!absl::SimpleAtoi(key, &token) || token < 0 || token >= end) {
      return in.Fail(
          InvalidFieldError("logit_bias", absl::StrCat("must have token ids from 0 to ", end - 1,
                                                       " as keys, got '", key.substr(0, 64), "'")));
    }
    float value = 0;
    entries.Float(key, -100, 100, false, &value);
    out->sampling.logit_bias.emplace_back(static_cast<int32_t>(token), value);
  }
  if (!entries.status().ok()) in.Fail(entries.status());
}

void ReadSampling(JsonReader& in, const ApiLimits& limits, CompletionRequest* out) {
  SamplingParams& sampling = out->sampling;
  in.Float("temperature", 0, 2, false, &sampling.temperature);
  in.Float("top_p", 0, 1, true, &sampling.top_p);
  in.Float("min_p", 0, 1, false, &sampling.min_p);
  in.Float("repetition_penalty", 0, 100, true, &sampling.repetition_penalty);
  in.Float("presence_penalty", -2, 2, false, &sampling.presence_penalty);
  in.Float("frequency_penalty", -2, 2, false, &sampling.frequency_penalty);
  in.Int("top_k", -1, kTokensMax, &sampling.top_k);
  if (sampling.top_k == -1) sampling.top_k = 0;  // vLLM's other name for "all"
  std::optional<int64_t> seed;
  in.Int("seed", std::numeric_limits<int64_t>::min(), kNoMax, &seed);
  if (seed.has_value()) out->seed = static_cast<uint64_t>(*seed);
  ReadLogitBias(in, limits, out);
}

void ReadStream(JsonReader& in, CompletionRequest* out) {
  in.Bool("stream", &out->stream);
  const json::value* options = in.Find("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) {
    return in.Fail(InvalidFieldError(
        "stream_options", absl::StrCat("must be an object, not ", JsonKindName(*options))));
  }
  if (!out->stream) {
    return in.Fail(InvalidFieldError("stream_options", "is only allowed when 'stream' is true"));
  }
  JsonReader nested(options->get_object(), "stream_options.");
  nested.Bool("include_usage", &out->include_usage);
  nested.Bool("continuous_usage_stats", &out->continuous_usage);
  if (!nested.status().ok()) in.Fail(nested.status());
}

void ReadTemplateFields(JsonReader& in, bool* add_generation_prompt, bool* add_special_tokens,
                        json::object* kwargs) {
  *add_special_tokens = false;
  in.Bool("add_generation_prompt", add_generation_prompt);
  in.Bool("add_special_tokens", add_special_tokens);
  const json::value* value = in.Find("chat_template_kwargs");
  if (value == nullptr) return;
  if (!value->is_object()) {
    return in.Fail(InvalidFieldError(
        "chat_template_kwargs", absl::StrCat("must be an object, not ", JsonKindName(*value))));
  }
  *kwargs = value->get_object();
}

// The fields that both routes have.
void ReadCommon(JsonReader& in, const ApiLimits& limits, CompletionRequest* out) {
  in.Fail(CheckUnsupportedFields(in));
  in.String("model", limits.name_bytes_max, &out->model);
  in.String("request_id", limits.name_bytes_max, &out->request_id);
  in.String("session_id", limits.name_bytes_max, &out->session_id);
  in.String("user", limits.name_bytes_max, &out->user);
  in.String("cache_salt", limits.name_bytes_max, &out->cache_salt);
  in.Int("priority", std::numeric_limits<int32_t>::min(), kTokensMax, &out->priority);
  in.Int("n", 1, limits.choices_max, &out->n);
  int64_t best_of = out->n;
  in.Int("best_of", 1, kTokensMax, &best_of);
  if (best_of != out->n) {
    in.Fail(UnsupportedFieldError(
        "best_of", absl::StrCat("is ", best_of, " and n is ", out->n,
                                "; this server returns every choice it makes, so they must be the "
                                "same")));
  }
  ReadSampling(in, limits, out);
  ReadStop(in, limits, out);
  in.TokenIds("stop_token_ids", limits.vocabulary_tokens, &out->stop_tokens);
  in.Bool("include_stop_str_in_output", &out->include_stop_in_output);
  in.Bool("no_stop_trim", &out->include_stop_in_output);
  in.Bool("ignore_eos", &out->ignore_eos);
  in.Int("min_tokens", 0, kTokensMax, &out->output_tokens_min);
  in.Bool("skip_special_tokens", &out->skip_special_tokens);
  in.Bool("return_token_ids", &out->return_token_ids);
  in.Bool("return_tokens_as_token_ids", &out->tokens_as_token_ids);
  ReadStream(in, out);
}

absl::Status CheckTogether(const CompletionRequest& request, absl::string_view output_field,
                           const ApiLimits& limits) {
  const int64_t choices =
      request.n * std::max<int64_t>(1, static_cast<int64_t>(request.prompts.size()));
  if (choices > limits.choices_max) {
    return InvalidFieldError("n", absl::StrCat("times the number of prompts must be at most ",
                                               limits.choices_max, ", got ", choices));
  }
  if (request.output_tokens_max.has_value() &&
      request.output_tokens_min > *request.output_tokens_max) {
    return InvalidFieldError("min_tokens", absl::StrCat("must be at most ", output_field, " (",
                                                        *request.output_tokens_max, "), got ",
                                                        request.output_tokens_min));
  }
  return absl::OkStatus();
}

// `ids`: the prompt, where it was an array of plain token ids.
absl::Status ReadPrompts(const JsonReader& in, const ApiLimits& limits, std::vector<int32_t> ids,
                         std::vector<Prompt>* prompts) {
  if (!ids.empty()) {
    prompts->push_back({.text = "", .tokens = std::move(ids), .is_tokens = true});
    return absl::OkStatus();
  }
  const json::value* value = in.Find("prompt");
  if (value == nullptr) return InvalidFieldError("prompt", "is required");
  auto add_text = [&](const json::string& text) {
    prompts->emplace_back();
    prompts->back().text.assign(text.data(), text.size());
  };
  auto add_tokens = [&](const json::array& ids, absl::string_view param) -> absl::Status {
    if (ids.empty()) return InvalidFieldError(param, "must hold at least one token id, got 0");
    prompts->emplace_back();
    prompts->back().is_tokens = true;
    LH_ASSIGN_OR_RETURN(prompts->back().tokens, JsonTokenIds(ids, limits.vocabulary_tokens, param));
    return absl::OkStatus();
  };
  if (value->is_string()) {
    add_text(value->get_string());
    return absl::OkStatus();
  }
  if (!value->is_array()) {
    return InvalidFieldError(
        "prompt", absl::StrCat("must be a string, an array of strings, an array of token ids or an "
                               "array of such arrays, not ",
                               JsonKindName(*value)));
  }
  const json::array& array = value->get_array();
  if (array.empty()) return InvalidFieldError("prompt", "must not be an empty array");
  if (array.front().is_number()) return add_tokens(array, "prompt");
  if (static_cast<int64_t>(array.size()) > limits.choices_max) {
    return InvalidFieldError("prompt", absl::StrCat("must hold at most ", limits.choices_max,
                                                    " prompts, got ", array.size()));
  }
  for (size_t i = 0; i < array.size(); ++i) {
    const std::string param = absl::StrCat("prompt[", i, "]");
    if (array[i].is_string()) {
      add_text(array[i].get_string());
    } else if (array[i].is_array()) {
      LH_RETURN_IF_ERROR(add_tokens(array[i].get_array(), param));
    } else {
      return InvalidFieldError(
          param,
          absl::StrCat("must be a string or an array of token ids, not ", JsonKindName(array[i])));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CompletionRequest> ParseCompletionRequest(absl::string_view body,
                                                         const ApiLimits& limits) {
  // Prompts of token ids in an array of arrays make many small values: they all go with one buffer.
  json::monotonic_resource memory;
  LH_ASSIGN_OR_RETURN(JsonWithIds root, ParseJsonWithIds(body, "prompt", limits.vocabulary_tokens,
                                                         limits.json_depth_max, &memory));
  JsonReader in(root.object.get_object());
  CompletionRequest request;
  request.kind = CompletionRequest::Kind::kText;
  in.Fail(ReadPrompts(in, limits, std::move(root.ids), &request.prompts));
  ReadCommon(in, limits, &request);
  in.Bool("echo", &request.echo);
  in.Bool("add_special_tokens", &request.add_special_tokens);
  in.Int("logprobs", 0, limits.top_logprobs_max, &request.sampling.top_logprobs);
  request.output_tokens_max = kDefaultTextOutputTokens;
  // With echo alone a client asks for nothing but its prompt back.
  in.Int("max_tokens", request.echo ? 0 : 1, kTokensMax, &request.output_tokens_max);
  if (request.echo && request.wants_logprobs()) {
    in.Fail(UnsupportedFieldError(
        "echo",
        "cannot be combined with 'logprobs': this server has no log probabilities of the "
        "prompt"));
  }
  LH_RETURN_IF_ERROR(in.status());
  LH_RETURN_IF_ERROR(CheckTogether(request, "max_tokens", limits));
  return request;
}

absl::StatusOr<CompletionRequest> ParseChatRequest(absl::string_view body,
                                                   const ApiLimits& limits) {
  json::monotonic_resource memory;
  LH_ASSIGN_OR_RETURN(json::value root, ParseJsonObject(body, limits.json_depth_max, &memory));
  JsonReader in(root.get_object());
  CompletionRequest request;
  request.kind = CompletionRequest::Kind::kChat;
  const json::value* messages = in.Find("messages");
  if (messages == nullptr) return InvalidFieldError("messages", "is required");
  LH_ASSIGN_OR_RETURN(request.messages, ReadChatMessages(*messages, limits.json_depth_max));
  ReadCommon(in, limits, &request);
  ReadTemplateFields(in, &request.add_generation_prompt, &request.add_special_tokens,
                     &request.chat_template_kwargs);
  bool echo = false;
  in.Bool("echo", &echo);
  if (echo) in.Fail(UnsupportedFieldError("echo", "is supported by /v1/completions only"));
  bool logprobs = false;
  in.Bool("logprobs", &logprobs);
  if (logprobs) request.sampling.top_logprobs = 0;
  std::optional<int64_t> top_logprobs;
  in.Int("top_logprobs", 0, limits.top_logprobs_max, &top_logprobs);
  if (top_logprobs.value_or(0) > 0 && !logprobs) {
    in.Fail(InvalidFieldError("top_logprobs", "is only allowed when 'logprobs' is true"));
  }
  if (logprobs && top_logprobs.has_value()) {
    request.sampling.top_logprobs = static_cast<int32_t>(*top_logprobs);
  }
  in.Int("max_tokens", 1, kTokensMax, &request.output_tokens_max);
  in.Int("max_completion_tokens", 1, kTokensMax, &request.output_tokens_max);
  LH_RETURN_IF_ERROR(in.status());
  const bool has_new_name = in.Find("max_completion_tokens") != nullptr;
  LH_RETURN_IF_ERROR(
      CheckTogether(request, has_new_name ? "max_completion_tokens" : "max_tokens", limits));
  return request;
}

absl::StatusOr<TokenizeRequest> ParseTokenizeRequest(absl::string_view body,
                                                     const ApiLimits& limits) {
  json::monotonic_resource memory;
  LH_ASSIGN_OR_RETURN(json::value root, ParseJsonObject(body, limits.json_depth_max, &memory));
  JsonReader in(root.get_object());
  TokenizeRequest request;
  in.Fail(CheckUnsupportedFields(in));
  in.String("model", limits.name_bytes_max, &request.model);
  in.Bool("return_token_strs", &request.return_token_strings);
  if (const json::value* messages = in.Find("messages"); messages != nullptr) {
    request.is_chat = true;
    if (in.Find("prompt") != nullptr) {
      return InvalidFieldError("prompt", "and 'messages' exclude each other");
    }
    LH_ASSIGN_OR_RETURN(request.messages, ReadChatMessages(*messages, limits.json_depth_max));
    ReadTemplateFields(in, &request.add_generation_prompt, &request.add_special_tokens,
                       &request.chat_template_kwargs);
  } else if (in.Find("prompt") == nullptr) {
    in.Fail(InvalidFieldError("prompt", "is required, unless 'messages' is given"));
  } else {
    in.String("prompt", body.size(), &request.prompt);
    in.Bool("add_special_tokens", &request.add_special_tokens);
  }
  LH_RETURN_IF_ERROR(in.status());
  return request;
}

absl::StatusOr<DetokenizeRequest> ParseDetokenizeRequest(absl::string_view body,
                                                         const ApiLimits& limits) {
  json::monotonic_resource memory;
  LH_ASSIGN_OR_RETURN(JsonWithIds root, ParseJsonWithIds(body, "tokens", limits.vocabulary_tokens,
                                                         limits.json_depth_max, &memory));
  JsonReader in(root.object.get_object());
  DetokenizeRequest request;
  in.String("model", limits.name_bytes_max, &request.model);
  if (in.Find("tokens") == nullptr) in.Fail(InvalidFieldError("tokens", "is required"));
  request.tokens = std::move(root.ids);
  if (request.tokens.empty()) {
    in.TokenIds("tokens", limits.vocabulary_tokens, &request.tokens);
  }
  LH_RETURN_IF_ERROR(in.status());
  return request;
}

}  // namespace longhaul
