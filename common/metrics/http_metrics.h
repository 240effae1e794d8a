// What an HTTP server publishes. Its counts are pulled at each scrape, so the server itself knows
// nothing of metrics.
#pragma once

#include <cstdint>
#include <functional>

#include "common/metrics/metric_registry.h"

namespace longhaul {

// HttpServerStats (common/http), field by field.
struct HttpCounts {
  int64_t connections = 0;
  int64_t connections_total = 0;
  int64_t connections_refused_total = 0;
  int64_t requests_total = 0;
  int64_t requests_refused_total = 0;
  int64_t slow_readers_total = 0;
  int64_t clients_gone_total = 0;
};

// `counts` is called on the threads that call MetricRegistry::Text(); before the server has started
// it returns zeros.
void PublishHttp(MetricRegistry& registry, std::function<HttpCounts()> counts);

}  // namespace longhaul
