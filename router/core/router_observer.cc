#include "router/core/router_observer.h"

#include <vector>

#include "router/api/error.h"

namespace longhaul {
namespace {

constexpr double kUs = 1e-6;

absl::string_view LengthClass(bool is_long) { return is_long ? "long" : "short"; }

// Refused: before any work, or the request's own fault.
absl::string_view OutcomeOf(const absl::Status& status, bool worked) {
  if (status.ok()) return "ok";
  if (absl::IsCancelled(status)) return "cancelled";
  const int http_status = ApiErrorFromStatus(status).http_status;
  return !worked && (http_status < 500 || http_status == 503) ? "refused" : "failed";
}

}  // namespace

void RouterObserver::OnReceived(absl::string_view endpoint) { metrics_.requests_in_flight.Add(1); }

void RouterObserver::OnFirstToken(const GenerateStart& start, int64_t since_received_us) {
  metrics_.ObserveTtft(LengthClass(start.is_long),
                       {since_received_us, start.queue_us, start.prefill_us,
                        start.transfer_exposed_us, start.first_decode_us});
  metrics_.request_queue_seconds.Observe(static_cast<double>(start.queue_us) * kUs);
  metrics_.placements_total.With({start.path}).Add();
  if (start.kv_bytes > 0) {
    metrics_.kv_bytes_total.With({start.transport}).Add(static_cast<double>(start.kv_bytes));
  }
}

void RouterObserver::OnTokens(bool is_long, int64_t tokens, int64_t since_last_us) {
  const Histogram between = metrics_.inter_token_seconds.With({LengthClass(is_long)});
  for (int64_t i = 0; i < tokens; ++i) {
    Histogram(between).Observe(static_cast<double>(since_last_us) * kUs /
                               static_cast<double>(tokens));
  }
}

void RouterObserver::OnOver(absl::string_view endpoint, const Usage& usage,
                            const absl::Status& status, bool worked, int64_t duration_us) {
  metrics_.requests_in_flight.Add(-1);
  metrics_.requests_total.With({endpoint, OutcomeOf(status, worked)}).Add();
  metrics_.request_seconds.With({endpoint}).Observe(static_cast<double>(duration_us) * kUs);
  if (worked) {
    metrics_.prompt_tokens_total.Add(static_cast<double>(usage.prompt_tokens));
    metrics_.cached_tokens_total.Add(static_cast<double>(usage.cached_tokens));
    metrics_.output_tokens_total.Add(static_cast<double>(usage.completion_tokens));
  }
  if (!status.ok() && !absl::IsCancelled(status)) {
    metrics_.errors_total.With({ApiErrorFromStatus(status).code}).Add();
  }
}

void RouterObserver::Sample(const ClusterView& view, const DispatcherStats& stats) {
  const auto count = [&](absl::string_view role, const std::vector<WorkerView>& workers) {
    int ready = 0, draining = 0;
    for (const WorkerView& worker : workers) {
      ready += worker.ready;
      draining += worker.draining;
    }
    metrics_.workers.With({role, "ready"}).Set(ready);
    metrics_.workers.With({role, "draining"}).Set(draining);
    metrics_.workers.With({role, "lost"})
        .Set(static_cast<double>(workers.size()) - ready - draining);
  };
  count("decode", view.decode);
  count("prefill", view.prefill);
  metrics_.replays_total.RaiseTo(static_cast<double>(stats.replays));
}

}  // namespace longhaul
