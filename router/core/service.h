// Service: the router's routes. An edge thread parses, checks, renders and tokenises a request,
// then posts it to the Loop, where a Reply carries it to its end; large bodies are prepared on the
// text loop instead, so that no other connection of the edge thread waits for them. Prompts are
// never logged.
//
//   POST /v1/chat/completions  /v1/completions  /tokenize  /detokenize
//   GET  /v1/models  /v1/models/{id}  and the admin routes (common/http/admin_routes.h)
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "common/http/admin_routes.h"
#include "common/http/http_exchange.h"
#include "common/runtime/loop.h"
#include "router/api/completion_request.h"
#include "router/core/api_keys.h"
#include "router/core/dispatcher.h"
#include "router/core/reply.h"
#include "router/core/served_model.h"

namespace longhaul {

struct ServiceOptions {
  ApiLimits limits;                          // vocabulary_tokens is set by the service
  int64_t edge_body_bytes_max = 32 << 10;    // a larger body is prepared on the text loop
  int64_t text_queue_bytes_max = 256 << 20;  // of bodies that wait there; above it refuse
  int64_t request_timeout_us = 0;            // of a whole generation; 0: none
  ApiKeys api_keys;                          // empty: everybody may ask
};

class Service final : public HttpHandler {
 public:
  // All must outlive the service. `loop` owns the dispatcher; `text_loop` may be the same only when
  // nothing else is served (tests).
  Service(Loop* loop, Loop* text_loop, Dispatcher* dispatcher, const ServedModel* model,
          RequestObserver* observer, AdminSources admin, ServiceOptions options);
  ~Service() override;

  // Any thread.
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) override;

 private:
  using Exchange = std::shared_ptr<HttpExchange>;

  void Route(const HttpRequest& request, const Exchange& exchange);
  void Generate(const HttpRequest& request, const Exchange& exchange, bool is_chat);
  void Tokenize(const HttpRequest& request, HttpExchange& exchange);
  void Detokenize(const HttpRequest& request, HttpExchange& exchange);
  void Models(const HttpRequest& request, HttpExchange& exchange);
  // On the Loop.
  void Begin(uint64_t id, PreparedRequest prepared, Exchange exchange);
  void ClientGone(uint64_t id);

  Loop* const loop_;
  Loop* const text_loop_;
  Dispatcher* const dispatcher_;
  const ServedModel* const model_;
  RequestObserver* const observer_;
  AdminRoutes admin_;
  const ServiceOptions options_;
  const int64_t begun_us_;
  std::atomic<uint64_t> next_id_{1};
  std::atomic<int64_t> text_queue_bytes_{0};
  // On the Loop.
  absl::flat_hash_map<uint64_t, std::unique_ptr<Reply>> replies_;
};

}  // namespace longhaul
