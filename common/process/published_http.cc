#include "common/process/published_http.h"

#include "common/metrics/http_metrics.h"

namespace longhaul {
namespace {

HttpCounts CountsOf(const HttpServerStats& stats) {
  return {stats.connections,       stats.connections_total,      stats.connections_refused_total,
          stats.requests_total,    stats.requests_refused_total, stats.slow_readers_total,
          stats.clients_gone_total};
}

}  // namespace

PublishedHttp::PublishedHttp(MetricRegistry& registry)
    : server_(std::make_shared<std::atomic<const HttpServer*>>(nullptr)) {
  PublishHttp(registry, [server = server_] {
    const HttpServer* const shown = server->load();
    return shown == nullptr ? HttpCounts() : CountsOf(shown->stats());
  });
}

}  // namespace longhaul
