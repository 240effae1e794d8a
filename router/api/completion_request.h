// The requests that clients of the OpenAI API send, as types. Parsing is pure and bounded: a field
// of a wrong type or range, or one that this server knows and cannot honour, is refused with its
// name (error.h, `param`); a field nobody knows is ignored. null means absent, as with OpenAI.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model/sampling.h"

namespace longhaul {

struct ApiLimits {
  int json_depth_max = 64;
  int64_t choices_max = 128;  // prompts times n
  int64_t top_logprobs_max = 20;
  int64_t stop_strings_max = 64;
  size_t stop_bytes_max = 4096;   // of one stop string
  size_t name_bytes_max = 1024;   // of model, user, request_id, session_id, cache_salt
  int64_t vocabulary_tokens = 0;  // token ids must be below it; 0: not checked here
};

struct Prompt {
  std::string text;             // when not is_tokens
  std::vector<int32_t> tokens;  // when is_tokens; not empty
  bool is_tokens = false;
};

struct CompletionRequest {
  enum class Kind : uint8_t { kText, kChat };

  Kind kind = Kind::kText;
  std::string model;  // empty: the client leaves it to the server

  std::vector<Prompt> prompts;  // kText: at least one
  bool echo = false;            // kText: the answer starts with the prompt

  // kChat: what the chat template gets. Each message is an object with a string `role` and a string
  // or null `content` (text parts are joined by a newline), "developer" already renamed to
  // "system", and the arguments of tool_calls parsed; other fields as the client sent them.
  boost::json::array messages;
  boost::json::object chat_template_kwargs;
  bool add_generation_prompt = true;

  bool add_special_tokens = true;   // kChat: false by default, the template writes them
  bool skip_special_tokens = true;  // in the output text

  SamplingParams sampling;       // its seed: use `seed` below
  std::optional<uint64_t> seed;  // absent: the server draws one
  int64_t n = 1;
  std::optional<int64_t> output_tokens_max;  // absent: what the context leaves
  int64_t output_tokens_min = 0;
  bool ignore_eos = false;
  std::vector<std::string> stop;  // none of them empty
  std::vector<int32_t> stop_tokens;
  bool include_stop_in_output = false;

  bool stream = false;
  bool include_usage = false;     // stream: one more chunk with the totals
  bool continuous_usage = false;  // stream: usage so far in every chunk
  bool return_token_ids = false;
  bool tokens_as_token_ids = false;  // log probabilities name tokens "token_id:17"

  std::string request_id;
  std::string session_id;
  std::string user;
  std::string cache_salt;  // requests of different salts never share cached KV
  int64_t priority = 0;    // lower is served first

  bool wants_logprobs() const { return sampling.top_logprobs >= 0; }
};

// POST /v1/completions and /v1/chat/completions.
absl::StatusOr<CompletionRequest> ParseCompletionRequest(absl::string_view body,
                                                         const ApiLimits& limits);
absl::StatusOr<CompletionRequest> ParseChatRequest(absl::string_view body, const ApiLimits& limits);

// POST /tokenize, in both of vLLM's shapes: a prompt or messages.
struct TokenizeRequest {
  std::string model;
  bool is_chat = false;
  std::string prompt;
  boost::json::array messages;  // as in CompletionRequest
  boost::json::object chat_template_kwargs;
  bool add_generation_prompt = true;
  bool add_special_tokens = true;  // false by default for a chat
  bool return_token_strings = false;
};
absl::StatusOr<TokenizeRequest> ParseTokenizeRequest(absl::string_view body,
                                                     const ApiLimits& limits);

// POST /detokenize.
struct DetokenizeRequest {
  std::string model;
  std::vector<int32_t> tokens;
};
absl::StatusOr<DetokenizeRequest> ParseDetokenizeRequest(absl::string_view body,
                                                         const ApiLimits& limits);

}  // namespace longhaul
