#include "router/core/prepared_request.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/hash.h"
#include "common/base/status.h"
#include "router/api/error.h"
#include "router/text/detokenizer.h"

namespace longhaul {
namespace {

// Over all choices of one request: each holds a copy of its prompt here and on the wire.
constexpr int64_t kPromptTokensTotalMax = 16 << 20;

// Takes the prompts out of `request`.
absl::StatusOr<std::vector<PreparedPrompt>> TokenisePrompts(CompletionRequest& request,
                                                            const ServedModel& model) {
  const Tokenizer& tokenizer = *model.tokenizer;
  std::vector<PreparedPrompt> prompts;
  if (request.kind == CompletionRequest::Kind::kChat) {
    LH_ASSIGN_OR_RETURN(const std::string text,
                        RenderChat(model, request.messages, request.chat_template_kwargs,
                                   request.add_generation_prompt));
    prompts.push_back({tokenizer.Encode(text, request.add_special_tokens, true), ""});
    return prompts;
  }
  for (Prompt& prompt : std::exchange(request.prompts, {})) {
    PreparedPrompt& prepared = prompts.emplace_back();
    if (prompt.is_tokens) {
      prepared.tokens = std::move(prompt.tokens);
      if (request.echo) prepared.echo = TextOf(tokenizer, prepared.tokens, false);
    } else {
      prepared.tokens = tokenizer.Encode(prompt.text, request.add_special_tokens, true);
      if (request.echo) prepared.echo = std::move(prompt.text);
    }
  }
  return prompts;
}

absl::Status CheckLengths(const CompletionRequest& request,
                          const std::vector<PreparedPrompt>& prompts, const ServedModel& model) {
  const char* field = request.kind == CompletionRequest::Kind::kChat ? "messages" : "prompt";
  int64_t total = 0;
  for (const PreparedPrompt& prompt : prompts) {
    const int64_t tokens = static_cast<int64_t>(prompt.tokens.size());
    if (tokens == 0)
      return InvalidFieldError(field, "is empty; the model needs at least one token");
    total += tokens * request.n;
    const int64_t output = request.output_tokens_max.value_or(1);
    if (tokens + output > model.context_tokens_max) {
      // A prompt that leaves no room is too long by itself, whatever output was asked for.
      return ContextLengthError(tokens, tokens < model.context_tokens_max ? output : 0,
                                model.context_tokens_max);
    }
  }
  if (total > kPromptTokensTotalMax) {
    return InvalidFieldError(
        "n", absl::StrCat("times the prompts makes ", total,
                          " prompt tokens; one request may have ", kPromptTokensTotalMax));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckModelName(const std::string& asked, const ServedModel& model) {
  if (asked.empty() || asked == model.name) return absl::OkStatus();
  return ModelNotFoundError(asked, model.name);
}

absl::StatusOr<std::string> RenderChat(const ServedModel& model, const boost::json::array& messages,
                                       const boost::json::object& kwargs,
                                       bool add_generation_prompt) {
  if (!model.render_chat) {
    return absl::InvalidArgumentError(
        absl::StrCat("The model '", model.name,
                     "' has no chat template; use /v1/completions with a prompt instead."));
  }
  return model.render_chat(messages, kwargs, add_generation_prompt);
}

std::string TextOf(const Tokenizer& tokenizer, absl::Span<const int32_t> tokens,
                   bool skip_special_tokens) {
  DetokenizerOptions options;
  options.strip_leading_space = tokenizer.adds_space_prefix();
  Detokenizer detokenizer(std::move(options));
  std::string text;
  for (const int32_t token : tokens) {
    if (skip_special_tokens && tokenizer.IsControl(token)) continue;
    text += detokenizer.Push(tokenizer.TokenBytes(token)).text;
  }
  text += detokenizer.Finish().text;
  return text;
}

absl::StatusOr<PreparedRequest> PrepareRequest(CompletionRequest request, const ServedModel& model,
                                               std::string id, uint64_t seed) {
  LH_RETURN_IF_ERROR(CheckModelName(request.model, model));
  PreparedRequest prepared;
  LH_ASSIGN_OR_RETURN(prepared.prompts, TokenisePrompts(request, model));
  LH_RETURN_IF_ERROR(CheckLengths(request, prepared.prompts, model));
  prepared.id = request.request_id.empty() ? std::move(id) : request.request_id;
  prepared.seed = request.seed.value_or(seed);
  if (!request.cache_salt.empty()) prepared.cache_salt = Hash64Of(request.cache_salt);
  prepared.request = std::move(request);
  return prepared;
}

GenerateCall CallOfChoice(const PreparedRequest& prepared, int64_t choice) {
  const CompletionRequest& request = prepared.request;
  const int64_t within_prompt = choice % request.n;
  GenerateCall call;
  call.request_id = prepared.choices() == 1 ? prepared.id : absl::StrCat(prepared.id, "-", choice);
  call.prompt = prepared.prompts[choice / request.n].tokens;
  call.output_tokens_max = request.output_tokens_max;
  call.output_tokens_min = request.output_tokens_min;
  call.ignore_eos = request.ignore_eos;
  call.stop_tokens = request.stop_tokens;
  call.sampling = request.sampling;
  call.sampling.seed = within_prompt == 0
                           ? prepared.seed
                           : Hash64Of(&within_prompt, sizeof(within_prompt), prepared.seed);
  call.cache_salt = prepared.cache_salt;
  call.deadline_us = prepared.timeout_us;
  return call;
}

}  // namespace longhaul
