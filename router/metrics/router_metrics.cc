#include "router/metrics/router_metrics.h"

namespace longhaul {

RouterMetrics::RouterMetrics(MetricRegistry& registry)
    : requests_total(registry.AddCounters("longhaul_requests_total",
                                          "Requests answered, by endpoint and outcome",
                                          {"endpoint", "outcome"})),
      requests_in_flight(registry.AddGauge("longhaul_requests_in_flight",
                                           "Requests received and not yet answered")),
      request_seconds(registry.AddHistograms("longhaul_request_seconds",
                                             "From receipt of a request to its last byte",
                                             RequestBoundsS(), {"endpoint"})),
      request_queue_seconds(registry.AddHistogram(
          "longhaul_request_queue_seconds",
          "Waiting for admission and for a prefill worker, before any compute", WorkBoundsS())),
      ttft_seconds(registry.AddHistograms("longhaul_ttft_seconds",
                                          "From receipt of a request to its first token",
                                          TtftBoundsS(), {"length_class"})),
      ttft_part_seconds(registry.AddHistograms(
          "longhaul_ttft_part_seconds",
          "Parts of the time to first token: queue, prefill compute, exposed transfer, first "
          "decode",
          TtftBoundsS(), {"length_class", "part"})),
      inter_token_seconds(registry.AddHistograms("longhaul_inter_token_seconds",
                                                 "Between one token of a request and the next",
                                                 InterTokenBoundsS(), {"length_class"})),
      prompt_tokens_total(registry.AddCounter("longhaul_prompt_tokens_total",
                                              "Prompt tokens of requests with a first token")),
      output_tokens_total(registry.AddCounter("longhaul_output_tokens_total", "Tokens generated")),
      cached_tokens_total(registry.AddCounter("longhaul_cached_tokens_total",
                                              "Prompt tokens whose KV was in a cache")),
      placements_total(registry.AddCounters(
          "longhaul_placements_total",
          "First tokens by where the prompt was computed: on a prefill worker (remote), on the "
          "decode worker (local), nowhere (cached)",
          {"path"})),
      kv_bytes_total(registry.AddCounters(
          "longhaul_kv_bytes_total", "KV moved from prefill to decode workers", {"transport"})),
      replays_total(registry.AddCounter("longhaul_replays_total",
                                        "Generations moved to another worker after a failure")),
      errors_total(
          registry.AddCounters("longhaul_errors_total", "Errors told to clients", {"kind"})),
      workers(registry.AddGauges("longhaul_workers", "Workers as the router sees them",
                                 {"role", "state"})) {}

void RouterMetrics::ObserveTtft(absl::string_view length_class, const TtftUs& ttft) {
  ttft_seconds.With({length_class}).Observe(static_cast<double>(ttft.total_us) / 1e6);
  const auto part = [&](absl::string_view name, int64_t us) {
    ttft_part_seconds.With({length_class, name}).Observe(static_cast<double>(us) / 1e6);
  };
  part("queue", ttft.queue_us);
  part("prefill", ttft.prefill_us);
  part("transfer", ttft.transfer_us);
  part("first_decode", ttft.first_decode_us);
}

}  // namespace longhaul
