#include "common/http/admin_routes.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace longhaul {
namespace {

constexpr char kPlainText[] = "text/plain; charset=utf-8";

}  // namespace

bool AdminRoutes::TryHandle(const HttpRequest& request, HttpExchange& exchange) {
  const std::string& path = request.path;
  const bool alive = path == "/livez" || path == "/health";
  if (!alive && path != "/metrics" && path != "/readyz" && path != "/version") return false;
  if (request.method != "GET" && request.method != "HEAD") {
    RespondError(exchange, 405, "method_not_allowed",
                 absl::StrCat(path, " answers GET, not ", request.method, "."),
                 {{"allow", "GET, HEAD"}});
    return true;
  }
  if (alive) {
    exchange.Respond(200, {{"content-type", kPlainText}}, "ok\n");
  } else if (path == "/metrics") {
    exchange.Respond(200, {{"content-type", "text/plain; version=0.0.4; charset=utf-8"}},
                     sources_.metrics());
  } else if (path == "/version") {
    exchange.Respond(200, {{"content-type", "application/json"}}, sources_.version());
  } else if (const absl::Status ready = sources_.ready(); ready.ok()) {
    exchange.Respond(200, {{"content-type", kPlainText}}, "ready\n");
  } else {
    exchange.Respond(503, {{"content-type", kPlainText}, {"retry-after", "1"}},
                     absl::StrCat("not ready: ", ready.message(), "\n"));
  }
  return true;
}

void AdminRoutes::Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
  if (TryHandle(request, *exchange)) return;
  RespondError(*exchange, 404, "not_found",
               absl::StrCat("No route ", request.path,
                            ". There are /metrics, /livez, /readyz and /version."));
}

}  // namespace longhaul
