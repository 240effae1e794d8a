#include "common/metrics/worker_metrics.h"

namespace longhaul {
// Names of one worker's metrics: the prefix, and the labels that all of them carry.
class WorkerMetricAdder {
 public:
  WorkerMetricAdder(MetricRegistry& registry, const std::string& role, const std::string& worker)
      : registry_(registry), fixed_({{"role", role}, {"worker", worker}}) {}

  Counter One(const char* name, const char* help) {
    return registry_.AddCounter(Name(name), help, fixed_);
  }
  Gauge OneGauge(const char* name, const char* help) {
    return registry_.AddGauge(Name(name), help, fixed_);
  }
  Histogram Times(const char* name, const char* help) {
    return registry_.AddHistogram(Name(name), help, WorkBoundsS(), fixed_);
  }
  MetricFamily<Counter> Counters(const char* name, const char* help,
                                 std::vector<std::string> labels) {
    return registry_.AddCounters(Name(name), help, std::move(labels), fixed_);
  }
  MetricFamily<Gauge> Gauges(const char* name, const char* help, std::vector<std::string> labels) {
    return registry_.AddGauges(Name(name), help, std::move(labels), fixed_);
  }
  MetricFamily<Histogram> TimesBy(const char* name, const char* help,
                                  std::vector<std::string> labels) {
    return registry_.AddHistograms(Name(name), help, WorkBoundsS(), std::move(labels), fixed_);
  }

 private:
  static std::string Name(const char* name) { return std::string("longhaul_worker_") + name; }
  MetricRegistry& registry_;
  const MetricLabels fixed_;
};

WorkerMetrics::WorkerMetrics(MetricRegistry& registry, const std::string& role,
                             const std::string& worker)
    : WorkerMetrics(WorkerMetricAdder(registry, role, worker)) {}

WorkerMetrics::WorkerMetrics(WorkerMetricAdder add)
    : kv_blocks(add.Gauges("kv_blocks",
                           "KV blocks: free, live (held by requests), cached (reusable prefixes)",
                           {"state"})),
      kv_block_bytes(add.OneGauge("kv_block_bytes", "Size of one KV block over all layers")),
      requests_running(add.OneGauge("requests_running", "Requests being computed")),
      requests_queued(add.OneGauge("requests_queued", "Requests accepted and not started")),
      queue_predicted_seconds(add.OneGauge("queue_predicted_seconds",
                                           "Predicted compute time of the work not done yet")),
      requests_total(
          add.Counters("requests_total", "Requests that are over, by outcome", {"outcome"})),
      first_token_part_seconds(
          add.TimesBy("first_token_part_seconds",
                      "Parts of the time from a request's arrival to its first token",
                      {"length_class", "part"})),
      steps_total(add.One("steps_total", "Forward passes")),
      step_seconds(add.Times("step_seconds", "Time of one forward pass")),
      tokens_total(add.Counters(
          "tokens_total",
          "Tokens: prompt (computed), cached (found in the prefix cache), output (generated)",
          {"kind"})),
      local_prefills_total(add.Counters(
          "local_prefills_total",
          "Prompts computed on a decode worker: short remainders, or for want of a prefill worker",
          {"reason"})),
      preemptions_total(add.One("preemptions_total", "Requests set back to free their blocks")),
      transfers_total(add.Counters("transfers_total", "KV transfers of a prompt, by outcome",
                                   {"transport", "outcome"})),
      transfer_bytes_total(
          add.Counters("transfer_bytes_total", "KV bytes moved", {"transport", "direction"})),
      transfer_seconds(
          add.TimesBy("transfer_seconds", "First to last KV byte of a prompt", {"transport"})),
      link_bandwidth_bytes_per_second(add.Gauges("link_bandwidth_bytes_per_second",
                                                 "Measured by the self-test at start",
                                                 {"peer", "transport"})),
      links_fenced_total(
          add.One("links_fenced_total",
                  "Links closed because the peer was gone or a cancelled transfer went on")),
      cancel_to_free_seconds(add.Times("cancel_to_free_seconds",
                                       "From the cancel of a transfer until its blocks are free")),
      cancel_to_free_seconds_max(
          add.OneGauge("cancel_to_free_seconds_max", "The longest of these since the start")),
      stale_messages_total(add.Counters(
          "stale_messages_total", "Messages of another incarnation or attempt, ignored", {"kind"})),
      errors_total(add.Counters("errors_total", "Errors, by kind", {"kind"})) {}

void PublishBuildInfo(MetricRegistry& registry, const std::string& role, const std::string& name,
                      const std::string& version, const std::string& model) {
  registry
      .AddGauge("longhaul_build_info", "What runs here; always 1",
                {{"role", role}, {"name", name}, {"version", version}, {"model", model}})
      .Set(1);
}

}  // namespace longhaul
