#include "router/core/reply.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "router/api/error.h"

namespace longhaul {
namespace {

HttpHeaders JsonHeaders() { return {{"content-type", "application/json"}}; }

HttpHeaders EventStreamHeaders() {
  return {{"content-type", "text/event-stream; charset=utf-8"},
          {"cache-control", "no-cache"},
          {"x-accel-buffering", "no"}};
}

HttpHeaders Joined(HttpHeaders headers, const HttpHeaders& more) {
  for (const auto& [name, value] : more) headers.Add(name, value);
  return headers;
}

}  // namespace

// One choice: its generation and the text it has become so far.
class Reply::Choice final : public GenerateListener {
 public:
  Choice(Reply* reply, int64_t index) : reply_(reply), index_(index), detokenizer_(Options()) {}

  void Begin() {
    const CompletionRequest& request = reply_->prepared_.request;
    if (request.output_tokens_max == 0) {  // echo alone
      SendPiece("", {}, {}, Finish{Finish::Reason::kLength, "", -1});
      Ended();
      return;
    }
    generation_ = reply_->dispatcher_->Submit(CallOfChoice(reply_->prepared_, index_), this);
  }
  void Cancel() { generation_.reset(); }

  void OnStart(const GenerateStart& start) override {
    is_long_ = start.is_long;
    reply_->OnStart(start, index_ / reply_->prepared_.request.n);
  }

  void OnTokens(absl::Span<const SampledToken> tokens, bool ends_with_stop) override {
    if (ended_) return;
    const CompletionRequest& request = reply_->prepared_.request;
    const Tokenizer& tokenizer = *reply_->model_->tokenizer;
    const int64_t now_us = reply_->loop_->NowUs();
    if (!first_tokens_) {
      reply_->observer_->OnTokens(is_long_, static_cast<int64_t>(tokens.size()),
                                  now_us - last_tokens_us_);
    }
    first_tokens_ = false;
    last_tokens_us_ = now_us;
    std::string text;
    std::vector<TokenLogprob> logprobs;
    std::vector<int32_t> ids;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const SampledToken& token = tokens[i];
      if (token.token < 0 || token.token >= tokenizer.vocab_size()) {
        reply_->Fail(absl::InternalError(absl::StrCat("a worker sent token ", token.token,
                                                      "; ids of this model are 0 to ",
                                                      tokenizer.vocab_size() - 1)));
        return;
      }
      ++reply_->completion_tokens_;
      ids.push_back(token.token);
      const bool is_stop = ends_with_stop && i + 1 == tokens.size();
      if (is_stop && !request.include_stop_in_output) continue;
      if (request.wants_logprobs()) logprobs.push_back(Named(token));
      const bool hidden = request.skip_special_tokens && tokenizer.IsControl(token.token);
      Detokenizer::Result result =
          detokenizer_.Push(hidden ? absl::string_view() : tokenizer.TokenBytes(token.token));
      text += result.text;
      if (result.stopped) {
        // The rest is not wanted: the worker need not compute it.
        generation_.reset();
        SendPiece(std::move(text), std::move(logprobs), std::move(ids),
                  Finish{Finish::Reason::kStop, std::move(result.stop_string), -1});
        return Ended();
      }
    }
    // The last tokens travel with the end.
    if (ends_with_stop || (text.empty() && logprobs.empty() && !Eager())) {
      held_text_ += text;
      Append(held_logprobs_, std::move(logprobs));
      Append(held_ids_, std::move(ids));
      return;
    }
    SendPiece(std::move(text), std::move(logprobs), std::move(ids), std::nullopt);
  }

  void OnEnd(const GenerateEnd& end) override {
    generation_.reset();
    if (ended_) return;
    const CompletionRequest& request = reply_->prepared_.request;
    Detokenizer::Result rest = detokenizer_.Finish();
    Finish finish;
    finish.reason = end.reason == GenerateEnd::Reason::kStopToken ? Finish::Reason::kStop
                                                                  : Finish::Reason::kLength;
    if (rest.stopped) {
      finish.reason = Finish::Reason::kStop;
      finish.stop_string = std::move(rest.stop_string);
    } else if (end.reason == GenerateEnd::Reason::kStopToken &&
               std::count(request.stop_tokens.begin(), request.stop_tokens.end(), end.stop_token) >
                   0) {
      finish.stop_token = end.stop_token;
    }
    SendPiece(std::move(rest.text), {}, {}, std::move(finish));
    Ended();
  }

  void OnError(const absl::Status& status) override {
    generation_.reset();
    if (!ended_) reply_->Fail(status);
  }

 private:
  DetokenizerOptions Options() const {
    const CompletionRequest& request = reply_->prepared_.request;
    DetokenizerOptions options;
    options.stop = request.stop;
    options.include_stop_in_output = request.include_stop_in_output;
    options.tokens_before_stop = request.output_tokens_min;
    return options;
  }
  const PreparedPrompt& prompt() const {
    return reply_->prepared_.prompts[index_ / reply_->prepared_.request.n];
  }
  // A chunk for every event, even without new text: its tokens are asked for.
  bool Eager() const { return reply_->prepared_.request.return_token_ids || first_piece_; }

  TokenLogprob Named(const SampledToken& token) const {
    const Tokenizer& tokenizer = *reply_->model_->tokenizer;
    const auto candidate = [&](int32_t id, float logprob) {
      const bool known = id >= 0 && id < tokenizer.vocab_size();
      return TokenLogprob::Candidate{id, logprob,
                                     known ? std::string(tokenizer.TokenBytes(id)) : ""};
    };
    TokenLogprob named;
    named.chosen = candidate(token.token, token.logprob);
    for (const auto& [id, logprob] : token.top_logprobs)
      named.top.push_back(candidate(id, logprob));
    return named;
  }

  template <typename T>
  static void Append(std::vector<T>& to, std::vector<T> from) {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  }

  void SendPiece(std::string text, std::vector<TokenLogprob> logprobs, std::vector<int32_t> ids,
                 std::optional<Finish> finish) {
    ChoicePiece piece;
    piece.index = index_;
    piece.first = std::exchange(first_piece_, false);
    if (piece.first) {
      piece.text = prompt().echo;
      piece.prompt_token_ids = prompt().tokens;
    }
    piece.text += std::exchange(held_text_, "");
    piece.text += text;
    piece.logprobs = std::exchange(held_logprobs_, {});
    Append(piece.logprobs, std::move(logprobs));
    piece.token_ids = std::exchange(held_ids_, {});
    Append(piece.token_ids, std::move(ids));
    piece.characters_before = characters_;
    characters_ += LogprobCharacters(reply_->head_, piece.logprobs);
    piece.finish = std::move(finish);
    reply_->Send(std::move(piece));
  }

  void Ended() {
    ended_ = true;
    reply_->ChoiceEnded();
  }

  Reply* const reply_;
  const int64_t index_;
  Detokenizer detokenizer_;
  std::unique_ptr<Generation> generation_;
  std::string held_text_;  // what the next piece starts with
  std::vector<TokenLogprob> held_logprobs_;
  std::vector<int32_t> held_ids_;
  int64_t characters_ = 0;
  int64_t last_tokens_us_ = 0;
  bool is_long_ = false;
  bool first_tokens_ = true;
  bool first_piece_ = true;
  bool ended_ = false;
};

Reply::Reply(Loop* loop, Dispatcher* dispatcher, const ServedModel* model,
             RequestObserver* observer, PreparedRequest prepared, int64_t created_s,
             std::shared_ptr<HttpExchange> exchange, absl::AnyInvocable<void()> over)
    : loop_(loop),
      dispatcher_(dispatcher),
      model_(model),
      observer_(observer),
      prepared_(std::move(prepared)),
      exchange_(std::move(exchange)),
      over_(std::move(over)),
      head_(MakeReplyHead(prepared_.request)) {
  const bool is_chat = prepared_.request.kind == CompletionRequest::Kind::kChat;
  head_.id = absl::StrCat(is_chat ? "chatcmpl-" : "cmpl-", prepared_.id);
  head_.created_s = created_s;
  head_.model = model_->name;
  head_.system_fingerprint = model_->system_fingerprint;
  cached_tokens_.resize(prepared_.prompts.size(), 0);
  whole_.resize(prepared_.choices());
}

Reply::~Reply() = default;

void Reply::Start() {
  choices_left_ = prepared_.choices();
  for (int64_t i = 0; i < prepared_.choices(); ++i) {
    choices_.push_back(std::make_unique<Choice>(this, i));
  }
  for (auto& choice : choices_) {
    if (is_over_) return;
    choice->Begin();
  }
}

void Reply::ClientGone() { Over(absl::CancelledError("the client went away")); }

void Reply::OnStart(const GenerateStart& start, int64_t prompt) {
  if (is_over_) return;
  cached_tokens_[prompt] = std::min(std::max(cached_tokens_[prompt], start.cached_tokens),
                                    static_cast<int64_t>(prepared_.prompts[prompt].tokens.size()));
  observer_->OnFirstToken(start, loop_->NowUs() - prepared_.received_us);
  if (std::exchange(answered_, true)) return;
  if (!start.prefill_name.empty()) headers_.Add("x-longhaul-prefill", start.prefill_name);
  headers_.Add("x-longhaul-decode", start.decode_name);
  headers_.Add("x-longhaul-path", start.path);
  headers_.Add("x-longhaul-kv-bytes", absl::StrCat(start.kv_bytes));
  headers_.Add("x-longhaul-kv-ms", absl::StrFormat("%.3f", static_cast<double>(start.kv_us) / 1e3));
}

void Reply::Send(ChoicePiece piece) {
  if (is_over_) return;
  if (!prepared_.request.stream) {
    ChoicePiece& whole = whole_[piece.index];
    whole.index = piece.index;
    whole.text += piece.text;
    whole.logprobs.insert(whole.logprobs.end(), std::make_move_iterator(piece.logprobs.begin()),
                          std::make_move_iterator(piece.logprobs.end()));
    whole.token_ids.insert(whole.token_ids.end(), piece.token_ids.begin(), piece.token_ids.end());
    if (piece.first) whole.prompt_token_ids = piece.prompt_token_ids;
    whole.finish = std::move(piece.finish);
    return;
  }
  if (!streaming_) StartStream();
  const Usage usage = UsageSoFar();
  Write(SseEvent(StreamChunk(head_, piece, prepared_.request.continuous_usage ? &usage : nullptr)));
}

void Reply::StartStream() {
  streaming_ = true;
  exchange_->StartStream(200, Joined(EventStreamHeaders(), headers_));
}

bool Reply::Write(std::string bytes) {
  if (exchange_->Write(std::move(bytes))) return true;
  ClientGone();
  return false;
}

// Counted before the last byte leaves: who has seen the answer finds it in the metrics.
void Reply::ChoiceEnded() {
  if (is_over_ || --choices_left_ > 0) return;
  if (!prepared_.request.stream) {
    std::string body = WholeReply(head_, whole_, UsageSoFar());
    Over(absl::OkStatus());
    return exchange_->Respond(200, Joined(JsonHeaders(), headers_), std::move(body));
  }
  if (prepared_.request.include_usage && !Write(SseEvent(UsageChunk(head_, UsageSoFar())))) return;
  if (!Write(kStreamDone)) return;
  Over(absl::OkStatus());
  exchange_->End();
}

void Reply::Fail(const absl::Status& status) {
  if (is_over_) return;
  const ApiError error = ApiErrorFromStatus(status);
  if (streaming_) {
    if (!Write(SseEvent(ErrorJson(error)))) return;
    Over(status);
    return exchange_->Abort();
  }
  Over(status);
  HttpHeaders headers = JsonHeaders();
  if (error.retry_after_s > 0) headers.Add("retry-after", absl::StrCat(error.retry_after_s));
  exchange_->Respond(error.http_status, std::move(headers), ErrorJson(error));
}

void Reply::Over(const absl::Status& status) {
  if (std::exchange(is_over_, true)) return;
  for (auto& choice : choices_) choice->Cancel();
  observer_->OnOver(prepared_.endpoint(), UsageSoFar(), status, answered_,
                    loop_->NowUs() - prepared_.received_us);
  over_();
}

Usage Reply::UsageSoFar() const {
  Usage usage;
  for (size_t i = 0; i < prepared_.prompts.size(); ++i) {
    usage.prompt_tokens += static_cast<int64_t>(prepared_.prompts[i].tokens.size());
    usage.cached_tokens += cached_tokens_[i];
  }
  usage.completion_tokens = completion_tokens_;
  return usage;
}

}  // namespace longhaul
