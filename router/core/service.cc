#include "router/core/service.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "router/api/completion_response.h"
#include "router/api/error.h"
#include "router/core/prepared_request.h"

namespace longhaul {
namespace {

constexpr char kChatPath[] = "/v1/chat/completions";
constexpr char kCompletionsPath[] = "/v1/completions";
constexpr char kModelsPath[] = "/v1/models";

void RespondStatus(HttpExchange& exchange, const absl::Status& status) {
  const ApiError error = ApiErrorFromStatus(status);
  HttpHeaders headers = {{"content-type", "application/json"}};
  if (error.retry_after_s > 0) headers.Add("retry-after", absl::StrCat(error.retry_after_s));
  if (error.http_status == 401) headers.Add("www-authenticate", "Bearer");
  exchange.Respond(error.http_status, std::move(headers), ErrorJson(error));
}

void RespondJson(HttpExchange& exchange, std::string body) {
  exchange.Respond(200, {{"content-type", "application/json"}}, std::move(body));
}

// Answers 405 unless `request` has the method that its path takes.
bool HasMethod(const HttpRequest& request, absl::string_view method, HttpExchange& exchange) {
  if (request.method == method || (method == "GET" && request.method == "HEAD")) return true;
  RespondError(exchange, 405, "method_not_allowed",
               absl::StrCat(request.path, " takes ", method, ", not ", request.method, "."),
               {{"allow", std::string(method)}});
  return false;
}

ServiceOptions WithVocabulary(ServiceOptions options, const ServedModel& model) {
  options.limits.vocabulary_tokens = model.tokenizer->vocab_size();
  return options;
}

}  // namespace

Service::Service(Loop* loop, Loop* text_loop, Dispatcher* dispatcher, const ServedModel* model,
                 RequestObserver* observer, AdminSources admin, ServiceOptions options)
    : loop_(loop),
      text_loop_(text_loop),
      dispatcher_(dispatcher),
      model_(model),
      observer_(observer),
      admin_(std::move(admin)),
      options_(WithVocabulary(std::move(options), *model)),
      begun_us_(loop->NowUs()) {}

Service::~Service() = default;

void Service::Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
  if (admin_.TryHandle(request, *exchange)) return;
  if (const absl::Status known = options_.api_keys.Check(request.headers.Get("authorization"));
      !known.ok()) {
    return RespondStatus(*exchange, known);
  }
  const int64_t bytes = static_cast<int64_t>(request.body.size());
  if (bytes <= options_.edge_body_bytes_max) return Route(request, exchange);
  if (text_queue_bytes_.fetch_add(bytes) + bytes > options_.text_queue_bytes_max) {
    text_queue_bytes_.fetch_sub(bytes);
    return RespondStatus(*exchange,
                         OverloadedError("too many large requests wait to be tokenised", 1));
  }
  text_loop_->Post([this, request = std::move(request), exchange = std::move(exchange), bytes] {
    Route(request, exchange);
    text_queue_bytes_.fetch_sub(bytes);
  });
}

void Service::Route(const HttpRequest& request, const Exchange& exchange) {
  const std::string& path = request.path;
  if (path == kChatPath || path == kCompletionsPath) {
    if (HasMethod(request, "POST", *exchange)) Generate(request, exchange, path == kChatPath);
  } else if (path == "/tokenize") {
    if (HasMethod(request, "POST", *exchange)) Tokenize(request, *exchange);
  } else if (path == "/detokenize") {
    if (HasMethod(request, "POST", *exchange)) Detokenize(request, *exchange);
  } else if (path == kModelsPath || absl::StartsWith(path, absl::StrCat(kModelsPath, "/"))) {
    if (HasMethod(request, "GET", *exchange)) Models(request, *exchange);
  } else {
    RespondStatus(*exchange,
                  absl::NotFoundError(absl::StrCat(
                      "No route ", request.method, " ", path, ". There are ", kChatPath, ", ",
                      kCompletionsPath, ", ", kModelsPath, ", /tokenize and /detokenize.")));
  }
}

void Service::Generate(const HttpRequest& request, const Exchange& exchange, bool is_chat) {
  const int64_t received_us = loop_->NowUs();
  const absl::string_view endpoint =
      EndpointName(is_chat ? CompletionRequest::Kind::kChat : CompletionRequest::Kind::kText);
  observer_->OnReceived(endpoint);
  const auto prepare = [&]() -> absl::StatusOr<PreparedRequest> {
    LH_ASSIGN_OR_RETURN(CompletionRequest parsed,
                        is_chat ? ParseChatRequest(request.body, options_.limits)
                                : ParseCompletionRequest(request.body, options_.limits));
    return PrepareRequest(std::move(parsed), *model_, request.request_id, RandomId());
  };
  absl::StatusOr<PreparedRequest> prepared = prepare();
  if (!prepared.ok()) {
    observer_->OnOver(endpoint, {}, prepared.status(), false, loop_->NowUs() - received_us);
    return RespondStatus(*exchange, prepared.status());
  }
  prepared->timeout_us = options_.request_timeout_us;
  prepared->received_us = received_us;
  loop_->Post([this, id = next_id_.fetch_add(1), prepared = *std::move(prepared),
               exchange]() mutable { Begin(id, std::move(prepared), std::move(exchange)); });
}

void Service::Begin(uint64_t id, PreparedRequest prepared, Exchange exchange) {
  const int64_t created_s = model_->created_s + (loop_->NowUs() - begun_us_) / 1'000'000;
  // Here and not at the edge: an exchange takes no two calls at a time.
  exchange->OnClientGone([this, id] { loop_->Post([this, id] { ClientGone(id); }); });
  auto reply = std::make_unique<Reply>(
      loop_, dispatcher_, model_, observer_, std::move(prepared), created_s, std::move(exchange),
      // Later: the reply is still on the stack.
      [this, id] { loop_->Post([this, id] { replies_.erase(id); }); });
  Reply* const begun = reply.get();
  replies_[id] = std::move(reply);
  begun->Start();
}

void Service::ClientGone(uint64_t id) {
  const auto found = replies_.find(id);
  if (found != replies_.end()) found->second->ClientGone();
}

void Service::Tokenize(const HttpRequest& request, HttpExchange& exchange) {
  const auto answer = [&]() -> absl::StatusOr<std::string> {
    LH_ASSIGN_OR_RETURN(const TokenizeRequest asked,
                        ParseTokenizeRequest(request.body, options_.limits));
    LH_RETURN_IF_ERROR(CheckModelName(asked.model, *model_));
    std::string text = asked.prompt;
    if (asked.is_chat) {
      LH_ASSIGN_OR_RETURN(text, RenderChat(*model_, asked.messages, asked.chat_template_kwargs,
                                           asked.add_generation_prompt));
    }
    const Tokenizer& tokenizer = *model_->tokenizer;
    const std::vector<int32_t> tokens = tokenizer.Encode(text, asked.add_special_tokens, true);
    std::vector<std::string> strings;
    if (asked.return_token_strings) {
      for (const int32_t token : tokens) strings.emplace_back(tokenizer.TokenBytes(token));
    }
    return TokenizeReply(tokens, model_->context_tokens_max,
                         asked.return_token_strings ? &strings : nullptr);
  };
  absl::StatusOr<std::string> body = answer();
  body.ok() ? RespondJson(exchange, *std::move(body)) : RespondStatus(exchange, body.status());
}

void Service::Detokenize(const HttpRequest& request, HttpExchange& exchange) {
  const auto answer = [&]() -> absl::StatusOr<std::string> {
    LH_ASSIGN_OR_RETURN(const DetokenizeRequest asked,
                        ParseDetokenizeRequest(request.body, options_.limits));
    LH_RETURN_IF_ERROR(CheckModelName(asked.model, *model_));
    return DetokenizeReply(TextOf(*model_->tokenizer, asked.tokens, false));
  };
  absl::StatusOr<std::string> body = answer();
  body.ok() ? RespondJson(exchange, *std::move(body)) : RespondStatus(exchange, body.status());
}

void Service::Models(const HttpRequest& request, HttpExchange& exchange) {
  const ModelInfo info = {model_->name, model_->created_s, model_->context_tokens_max};
  if (request.path == kModelsPath) return RespondJson(exchange, ModelsReply({&info, 1}));
  const absl::string_view asked = absl::StripPrefix(request.path, absl::StrCat(kModelsPath, "/"));
  if (asked != model_->name) {
    return RespondStatus(exchange, ModelNotFoundError(asked, model_->name));
  }
  RespondJson(exchange, ModelReply(info));
}

}  // namespace longhaul
