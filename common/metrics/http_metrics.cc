#include "common/metrics/http_metrics.h"

#include <utility>

namespace longhaul {

void PublishHttp(MetricRegistry& registry, std::function<HttpCounts()> counts) {
  const auto publish = [&](PulledKind kind, const char* name, const char* help,
                           int64_t HttpCounts::*field) {
    registry.AddPulled(kind, name, help,
                       [counts, field] { return static_cast<double>(counts().*field); });
  };
  publish(PulledKind::kGauge, "longhaul_http_connections", "Open HTTP connections",
          &HttpCounts::connections);
  publish(PulledKind::kCounter, "longhaul_http_connections_total", "HTTP connections accepted",
          &HttpCounts::connections_total);
  publish(PulledKind::kCounter, "longhaul_http_connections_refused_total",
          "HTTP connections turned away because the maximum was open",
          &HttpCounts::connections_refused_total);
  publish(PulledKind::kCounter, "longhaul_http_requests_total",
          "HTTP requests that were well-formed and within the limits", &HttpCounts::requests_total);
  publish(PulledKind::kCounter, "longhaul_http_requests_refused_total",
          "HTTP requests refused for their framing, a limit or a timeout",
          &HttpCounts::requests_refused_total);
  publish(PulledKind::kCounter, "longhaul_http_slow_readers_total",
          "Clients dropped because they did not read their answer",
          &HttpCounts::slow_readers_total);
  publish(PulledKind::kCounter, "longhaul_http_clients_gone_total",
          "Clients that left before their answer ended", &HttpCounts::clients_gone_total);
}

}  // namespace longhaul
