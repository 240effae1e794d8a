// What a prefill or decode worker publishes. All carry {role, worker}; every member says its other
// labels, and their values where these are few. Several workers in one process share a registry.
#pragma once

#include <string>

#include "common/metrics/metric_registry.h"

namespace longhaul {

class WorkerMetricAdder;

struct WorkerMetrics {
  // `role`: "prefill" or "decode"; `worker`: the worker's name.
  WorkerMetrics(MetricRegistry& registry, const std::string& role, const std::string& worker);

  MetricFamily<Gauge> kv_blocks;  // {state=free|live|cached}
  Gauge kv_block_bytes;
  Gauge requests_running;
  Gauge requests_queued;
  Gauge queue_predicted_seconds;         // compute time of the work accepted and not done
  MetricFamily<Counter> requests_total;  // {outcome=finished|refused|cancelled|failed}

  // {length_class=short|long, part=queue|prefill|transfer|first_decode}: on a decode worker
  MetricFamily<Histogram> first_token_part_seconds;

  Counter steps_total;
  Histogram step_seconds;
  // {kind=prompt|cached|output}: prompt tokens computed, prompt tokens found cached, tokens
  // generated.
  MetricFamily<Counter> tokens_total;
  MetricFamily<Counter> local_prefills_total;  // {reason=short|fallback}: on a decode worker
  Counter preemptions_total;

  MetricFamily<Counter> transfers_total;       // {transport, outcome=ok|failed|cancelled}
  MetricFamily<Counter> transfer_bytes_total;  // {transport, direction=sent|received}
  MetricFamily<Histogram> transfer_seconds;    // {transport}: first to last byte of a prompt
  MetricFamily<Gauge> link_bandwidth_bytes_per_second;  // {peer=self, transport}: by the self-test
  Counter links_fenced_total;  // closed: peer gone, or a cancelled transfer was not quiet in time

  Histogram cancel_to_free_seconds;            // a cancelled transfer until its blocks are free
  Gauge cancel_to_free_seconds_max;            // the longest so far
  MetricFamily<Counter> stale_messages_total;  // {kind}: of another incarnation or attempt, ignored
  MetricFamily<Counter> errors_total;          // {kind}

 private:
  explicit WorkerMetrics(WorkerMetricAdder add);
};

// longhaul_build_info{role, name, version, model} 1
void PublishBuildInfo(MetricRegistry& registry, const std::string& role, const std::string& name,
                      const std::string& version, const std::string& model);

}  // namespace longhaul
