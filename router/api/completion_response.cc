#include "router/api/completion_response.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/utf8.h"
#include "router/api/json_writer.h"

namespace longhaul {
namespace {

using Kind = CompletionRequest::Kind;

// JSON has no infinity; this is what vLLM sends for a token that cannot be.
constexpr float kLogprobMin = -9999.0f;

float Finite(float logprob) { return std::isfinite(logprob) ? logprob : kLogprobMin; }

std::string TokenName(const ReplyHead& head, const TokenLogprob::Candidate& candidate) {
  if (head.tokens_as_token_ids) return absl::StrCat("token_id:", candidate.token);
  return candidate.text;
}

size_t TopCount(const ReplyHead& head, const TokenLogprob& token) {
  return std::min<size_t>(token.top.size(), std::max(0, head.top_logprobs));
}

void WriteTokenIds(absl::Span<const int32_t> ids, JsonWriter* out) {
  out->BeginArray();
  for (int32_t id : ids) out->Int(id);
  out->EndArray();
}

void WriteUsage(const Usage& usage, JsonWriter* out) {
  out->BeginObject();
  out->Key("prompt_tokens").Int(usage.prompt_tokens);
  out->Key("total_tokens").Int(usage.prompt_tokens + usage.completion_tokens);
  out->Key("completion_tokens").Int(usage.completion_tokens);
  out->Key("prompt_tokens_details").BeginObject();
  out->Key("cached_tokens").Int(usage.cached_tokens).EndObject();
  out->EndObject();
}

void WriteChatCandidate(const ReplyHead& head, const TokenLogprob::Candidate& candidate,
                        JsonWriter* out) {
  out->Key("token").String(TokenName(head, candidate));
  out->Key("logprob").Float(Finite(candidate.logprob));
  out->Key("bytes").BeginArray();
  for (char byte : candidate.text) out->Int(static_cast<uint8_t>(byte));
  out->EndArray();
}

void WriteChatLogprobs(const ReplyHead& head, const ChoicePiece& piece, JsonWriter* out) {
  out->BeginObject().Key("content").BeginArray();
  for (const TokenLogprob& token : piece.logprobs) {
    out->BeginObject();
    WriteChatCandidate(head, token.chosen, out);
    out->Key("top_logprobs").BeginArray();
    for (size_t i = 0; i < TopCount(head, token); ++i) {
      out->BeginObject();
      WriteChatCandidate(head, token.top[i], out);
      out->EndObject();
    }
    out->EndArray().EndObject();
  }
  out->EndArray().EndObject();
}

void WriteTextLogprobs(const ReplyHead& head, const ChoicePiece& piece, JsonWriter* out) {
  out->BeginObject().Key("text_offset").BeginArray();
  int64_t offset = piece.characters_before;
  for (const TokenLogprob& token : piece.logprobs) {
    out->Int(offset);
    offset += CountUtf8(TokenName(head, token.chosen));
  }
  out->EndArray().Key("token_logprobs").BeginArray();
  for (const TokenLogprob& token : piece.logprobs) out->Float(Finite(token.chosen.logprob));
  out->EndArray().Key("tokens").BeginArray();
  for (const TokenLogprob& token : piece.logprobs) out->String(TokenName(head, token.chosen));
  out->EndArray().Key("top_logprobs").BeginArray();
  for (const TokenLogprob& token : piece.logprobs) {
    out->BeginObject();
    // Two tokens may have the same text: a JSON object keeps the likelier. The chosen one is always
    // there, as with OpenAI.
    std::vector<std::string> names;
    auto add = [&](const TokenLogprob::Candidate& candidate) {
      std::string name = TokenName(head, candidate);
      if (std::find(names.begin(), names.end(), name) != names.end()) return;
      out->Key(name).Float(Finite(candidate.logprob));
      names.push_back(std::move(name));
    };
    for (size_t i = 0; i < TopCount(head, token); ++i) add(token.top[i]);
    add(token.chosen);
    out->EndObject();
  }
  out->EndArray().EndObject();
}

void WriteLogprobs(const ReplyHead& head, const ChoicePiece& piece, JsonWriter* out) {
  out->Key("logprobs");
  if (head.top_logprobs < 0) {
    out->Null();
  } else if (head.kind == Kind::kChat) {
    WriteChatLogprobs(head, piece, out);
  } else {
    WriteTextLogprobs(head, piece, out);
  }
}

void WriteFinish(const ChoicePiece& piece, JsonWriter* out) {
  out->Key("finish_reason");
  if (!piece.finish.has_value()) {
    out->Null().Key("stop_reason").Null();
    return;
  }
  const Finish& finish = *piece.finish;
  out->String(finish.reason == Finish::Reason::kStop ? "stop" : "length");
  out->Key("stop_reason");
  if (!finish.stop_string.empty()) {
    out->String(finish.stop_string);
  } else if (finish.stop_token >= 0) {
    out->Int(finish.stop_token);
  } else {
    out->Null();
  }
}

void WriteChoice(const ReplyHead& head, const ChoicePiece& piece, bool whole, JsonWriter* out) {
  out->BeginObject().Key("index").Int(piece.index);
  if (head.kind == Kind::kText) {
    out->Key("text").String(piece.text);
  } else if (whole) {
    out->Key("message").BeginObject().Key("role").String("assistant");
    out->Key("content").String(piece.text).Key("refusal").Null().EndObject();
  } else {
    out->Key("delta").BeginObject();
    if (piece.first) out->Key("role").String("assistant");
    // The first delta has a content even when it is empty, the last one need not have any.
    if (piece.first || !piece.text.empty()) out->Key("content").String(piece.text);
    out->EndObject();
  }
  WriteLogprobs(head, piece, out);
  WriteFinish(piece, out);
  if (head.return_token_ids) {
    out->Key("token_ids");
    WriteTokenIds(piece.token_ids, out);
    if (head.kind == Kind::kText && (whole || piece.first)) {
      out->Key("prompt_token_ids");
      WriteTokenIds(piece.prompt_token_ids, out);
    }
  }
  out->EndObject();
}

void WriteHead(const ReplyHead& head, absl::string_view object, JsonWriter* out) {
  out->BeginObject().Key("id").String(head.id).Key("object").String(object);
  out->Key("created").Int(head.created_s).Key("model").String(head.model);
  if (!head.system_fingerprint.empty()) {
    out->Key("system_fingerprint").String(head.system_fingerprint);
  }
}

absl::string_view ChunkObject(const ReplyHead& head) {
  return head.kind == Kind::kChat ? "chat.completion.chunk" : "text_completion";
}

}  // namespace

ReplyHead MakeReplyHead(const CompletionRequest& request) {
  ReplyHead head;
  head.kind = request.kind;
  head.top_logprobs = request.sampling.top_logprobs;
  head.include_usage = request.include_usage;
  head.return_token_ids = request.return_token_ids;
  head.tokens_as_token_ids = request.tokens_as_token_ids;
  return head;
}

std::string WholeReply(const ReplyHead& head, absl::Span<const ChoicePiece> choices,
                       const Usage& usage) {
  JsonWriter out;
  WriteHead(head, head.kind == Kind::kChat ? "chat.completion" : "text_completion", &out);
  out.Key("choices").BeginArray();
  for (const ChoicePiece& choice : choices) WriteChoice(head, choice, true, &out);
  out.EndArray().Key("usage");
  WriteUsage(usage, &out);
  if (head.return_token_ids && head.kind == Kind::kChat && !choices.empty()) {
    out.Key("prompt_token_ids");
    WriteTokenIds(choices.front().prompt_token_ids, &out);
  }
  out.EndObject();
  return out.Take();
}

std::string StreamChunk(const ReplyHead& head, const ChoicePiece& piece,
                        const Usage* usage_so_far) {
  JsonWriter out;
  WriteHead(head, ChunkObject(head), &out);
  out.Key("choices").BeginArray();
  WriteChoice(head, piece, false, &out);
  out.EndArray();
  if (head.return_token_ids && head.kind == Kind::kChat && piece.first) {
    out.Key("prompt_token_ids");
    WriteTokenIds(piece.prompt_token_ids, &out);
  }
  if (usage_so_far != nullptr) {
    out.Key("usage");
    WriteUsage(*usage_so_far, &out);
  } else if (head.include_usage) {
    out.Key("usage").Null();
  }
  out.EndObject();
  return out.Take();
}

std::string UsageChunk(const ReplyHead& head, const Usage& usage) {
  JsonWriter out;
  WriteHead(head, ChunkObject(head), &out);
  out.Key("choices").BeginArray().EndArray().Key("usage");
  WriteUsage(usage, &out);
  out.EndObject();
  return out.Take();
}

int64_t LogprobCharacters(const ReplyHead& head, absl::Span<const TokenLogprob> logprobs) {
  int64_t characters = 0;
  for (const TokenLogprob& token : logprobs) {
    characters += CountUtf8(TokenName(head, token.chosen));
  }
  return characters;
}

std::string SseEvent(absl::string_view json) { return absl::StrCat("data: ", json, "\n\n"); }

namespace {

void WriteModel(const ModelInfo& model, JsonWriter* out) {
  out->BeginObject().Key("id").String(model.id).Key("object").String("model");
  out->Key("created").Int(model.created_s).Key("owned_by").String("longhaul");
  out->Key("root").String(model.id).Key("parent").Null();
  out->Key("max_model_len").Int(model.context_tokens_max).EndObject();
}

}  // namespace

std::string ModelsReply(absl::Span<const ModelInfo> models) {
  JsonWriter out;
  out.BeginObject().Key("object").String("list").Key("data").BeginArray();
  for (const ModelInfo& model : models) WriteModel(model, &out);
  out.EndArray().EndObject();
  return out.Take();
}

std::string ModelReply(const ModelInfo& model) {
  JsonWriter out;
  WriteModel(model, &out);
  return out.Take();
}

std::string TokenizeReply(absl::Span<const int32_t> tokens, int64_t context_tokens_max,
                          const std::vector<std::string>* token_strings) {
  JsonWriter out;
  out.BeginObject().Key("count").Int(static_cast<int64_t>(tokens.size()));
  out.Key("max_model_len").Int(context_tokens_max).Key("tokens");
  WriteTokenIds(tokens, &out);
  out.Key("token_strs");
  if (token_strings == nullptr) {
    out.Null();
  } else {
    out.BeginArray();
    for (const std::string& text : *token_strings) out.String(text);
    out.EndArray();
  }
  out.EndObject();
  return out.Take();
}

std::string DetokenizeReply(absl::string_view text) {
  JsonWriter out;
  out.BeginObject().Key("prompt").String(text).EndObject();
  return out.Take();
}

}  // namespace longhaul
