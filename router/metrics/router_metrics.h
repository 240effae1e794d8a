// What the router publishes. Every member says its labels, and their values where these are few.
#pragma once

#include "common/metrics/metric_registry.h"

namespace longhaul {

struct RouterMetrics {
  explicit RouterMetrics(MetricRegistry& registry);

  MetricFamily<Counter> requests_total;  // {endpoint, outcome=ok|cancelled|refused|failed}
  Gauge requests_in_flight;
  MetricFamily<Histogram> request_seconds;  // {endpoint}: receipt to last byte
  Histogram request_queue_seconds;          // waiting for admission and for a worker

  // {length_class=short|long}: receipt of the request to its first token.
  MetricFamily<Histogram> ttft_seconds;
  // {length_class, part=queue|prefill|transfer|first_decode}: the parts of the above.
  MetricFamily<Histogram> ttft_part_seconds;
  MetricFamily<Histogram> inter_token_seconds;  // {length_class}

  Counter prompt_tokens_total;
  Counter output_tokens_total;
  Counter cached_tokens_total;  // of the prompt tokens, those whose KV was in a cache

  MetricFamily<Counter> placements_total;  // {path=remote|local|cached}: how prompts were computed
  MetricFamily<Counter> kv_bytes_total;    // {transport}: moved for first tokens
  Counter replays_total;                   // generations moved to another worker after a failure
  MetricFamily<Counter> errors_total;      // {kind}: the error code of the API
  MetricFamily<Gauge> workers;             // {role=prefill|decode, state=ready|lost|draining}

  // Observes the whole and its parts at once; times in microseconds, as GenerateEvent has them.
  struct TtftUs {
    int64_t total_us = 0;
    int64_t queue_us = 0;
    int64_t prefill_us = 0;
    int64_t transfer_us = 0;
    int64_t first_decode_us = 0;
  };
  void ObserveTtft(absl::string_view length_class, const TtftUs& ttft);
};

}  // namespace longhaul
