// RouterObserver: turns what happens to requests into RouterMetrics.
#pragma once

#include "router/core/cluster.h"
#include "router/core/request_observer.h"
#include "router/metrics/router_metrics.h"

namespace longhaul {

class RouterObserver final : public RequestObserver {
 public:
  explicit RouterObserver(MetricRegistry& registry) : metrics_(registry) {}

  void OnReceived(absl::string_view endpoint) override;
  void OnFirstToken(const GenerateStart& start, int64_t since_received_us) override;
  void OnTokens(bool is_long, int64_t tokens, int64_t since_last_us) override;
  void OnOver(absl::string_view endpoint, const Usage& usage, const absl::Status& status,
              bool worked, int64_t duration_us) override;

  // What is counted elsewhere; by one thread, now and then.
  void Sample(const ClusterView& view, const DispatcherStats& stats);

 private:
  RouterMetrics metrics_;
};

}  // namespace longhaul
