// A checked request with its prompts as tokens: what an edge thread hands to the Loop. Everything
// here is pure and may be slow (a megabyte of text takes tens of milliseconds): never call it on
// the Loop.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "router/api/completion_request.h"
#include "router/core/dispatcher.h"
#include "router/core/served_model.h"

namespace longhaul {

// "chat_completions" or "completions", for metrics.
inline absl::string_view EndpointName(CompletionRequest::Kind kind) {
  return kind == CompletionRequest::Kind::kChat ? "chat_completions" : "completions";
}

struct PreparedPrompt {
  std::vector<int32_t> tokens;  // never empty
  std::string echo;             // the text that the answer starts with
};

struct PreparedRequest {
  std::string id;  // as the answer names it, without its prefix
  CompletionRequest request;
  std::vector<PreparedPrompt> prompts;
  uint64_t seed = 0;
  uint64_t cache_salt = 0;
  int64_t timeout_us = 0;   // of each generation; 0: none
  int64_t received_us = 0;  // by the Loop's clock

  absl::string_view endpoint() const { return EndpointName(request.kind); }
  int64_t choices() const { return static_cast<int64_t>(prompts.size()) * request.n; }
};

// Token ids in `request` are below the vocabulary's size (ApiLimits). Errors name the field and the
// numbers: unknown model, no chat template, an empty prompt, prompt and output longer than the
// context. `seed` is used when the request has none.
absl::StatusOr<PreparedRequest> PrepareRequest(CompletionRequest request, const ServedModel& model,
                                               std::string id, uint64_t seed);

// What the dispatcher gets for choice `choice` in [0, choices()): choices of one prompt follow each
// other. Choice 0 of each prompt draws with the request's seed itself.
GenerateCall CallOfChoice(const PreparedRequest& prepared, int64_t choice);

// 404 unless `asked` is empty or the served name.
absl::Status CheckModelName(const std::string& asked, const ServedModel& model);

// The prompt text of chat messages, or why there is none.
absl::StatusOr<std::string> RenderChat(const ServedModel& model, const boost::json::array& messages,
                                       const boost::json::object& kwargs,
                                       bool add_generation_prompt);

// The text that `tokens` stand for.
std::string TextOf(const Tokenizer& tokenizer, absl::Span<const int32_t> tokens,
                   bool skip_special_tokens);

}  // namespace longhaul
