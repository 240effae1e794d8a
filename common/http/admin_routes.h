// The routes that every process serves to its operators: /metrics, /livez, /health, /readyz,
// /version. The router asks them beside its API; workers serve nothing else.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/http/http_exchange.h"

namespace longhaul {

// Called on edge threads, also at once: they must be thread-safe and quick.
struct AdminSources {
  std::function<std::string()> metrics;  // Prometheus text
  std::function<absl::Status()> ready;   // OK, or why no work should be sent here
  std::function<std::string()> version;  // a JSON object
};

class AdminRoutes final : public HttpHandler {
 public:
  explicit AdminRoutes(AdminSources sources) : sources_(std::move(sources)) {}

  // Answers when the path is one of ours; false leaves the exchange untouched.
  bool TryHandle(const HttpRequest& request, HttpExchange& exchange);
  // TryHandle, and 404 for all else.
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) override;

 private:
  const AdminSources sources_;
};

}  // namespace longhaul
