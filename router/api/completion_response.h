// What goes back to a client: completion and chat completion objects, the chunks of a stream,
// /v1/models, /tokenize and /detokenize. Everything returns JSON text. Pure, any thread. One stream
// is: a chunk for each piece of each choice (the first of a choice with `first`, the last with
// `finish`), one UsageChunk if the client asked for usage, kStreamDone; each but the last in
// SseEvent. A stream that fails sends ErrorJson (error.h) in SseEvent instead of its remaining
// chunks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/model/sampling.h"
#include "router/api/completion_request.h"

namespace longhaul {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt
};

// One token with its probability. `text` is the token's bytes, which need not be UTF-8.
struct TokenLogprob {
  struct Candidate {
    int32_t token = -1;
    float logprob = 0;
    std::string text;
  };
  Candidate chosen;
  std::vector<Candidate> top;  // descending; at least as many as top_logprobs asks for
};

struct Finish {
  enum class Reason : uint8_t { kStop, kLength };
  Reason reason = Reason::kStop;
  std::string stop_string;  // the stop string that ended it; empty: none did
  int32_t stop_token = -1;  // the one of stop_token_ids that ended it; -1: none did
};

// One choice of a whole answer, or one piece of it in a stream.
struct ChoicePiece {
  int64_t index = 0;
  std::string text;
  std::vector<TokenLogprob> logprobs;  // of this piece's tokens; used when the request wants them
  std::vector<int32_t> token_ids;      // of this piece; used with return_token_ids
  std::optional<Finish> finish;
  bool first = false;             // stream: the choice's first piece
  int64_t characters_before = 0;  // stream, kText: characters of the earlier pieces' log
                                  // probabilities, for text_offset; see LogprobCharacters
  absl::Span<const int32_t> prompt_token_ids;  // used with return_token_ids, when `first` or whole
};

// What all answers to one request share.
struct ReplyHead {
  std::string id;  // "chatcmpl-..." or "cmpl-..."
  int64_t created_s = 0;
  std::string model;
  std::string system_fingerprint;  // empty: left out
  // Of the request:
  CompletionRequest::Kind kind = CompletionRequest::Kind::kText;
  int32_t top_logprobs = -1;
  bool include_usage = false;
  bool return_token_ids = false;
  bool tokens_as_token_ids = false;
};

// Fills in what the request decides.
ReplyHead MakeReplyHead(const CompletionRequest& request);

// The answer of a request that does not stream.
std::string WholeReply(const ReplyHead& head, absl::Span<const ChoicePiece> choices,
                       const Usage& usage);

// One chunk of a stream. `usage_so_far`: for continuous usage, else null.
std::string StreamChunk(const ReplyHead& head, const ChoicePiece& piece, const Usage* usage_so_far);
// The chunk after the last one of every choice, when the request has include_usage.
std::string UsageChunk(const ReplyHead& head, const Usage& usage);

// How many characters `logprobs` adds to the next piece's `characters_before`.
int64_t LogprobCharacters(const ReplyHead& head, absl::Span<const TokenLogprob> logprobs);

inline constexpr char kStreamDone[] = "data: [DONE]\n\n";
std::string SseEvent(absl::string_view json);

struct ModelInfo {
  std::string id;
  int64_t created_s = 0;
  int64_t context_tokens_max = 0;
};
std::string ModelsReply(absl::Span<const ModelInfo> models);
std::string ModelReply(const ModelInfo& model);

// `token_strings`: null unless the request asks for them.
std::string TokenizeReply(absl::Span<const int32_t> tokens, int64_t context_tokens_max,
                          const std::vector<std::string>* token_strings);
std::string DetokenizeReply(absl::string_view text);

}  // namespace longhaul
