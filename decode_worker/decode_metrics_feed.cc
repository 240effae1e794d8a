#include "decode_worker/decode_metrics_feed.h"

#include <utility>

namespace longhaul {
namespace {

double Seconds(int64_t duration_us) { return static_cast<double>(duration_us) * 1e-6; }

}  // namespace

DecodeMetricsFeed::DecodeMetricsFeed(Loop* loop, DecodeWorker* worker, WorkerMetrics metrics,
                                     const WorkerMetricsFeedOptions& options)
    : WorkerMetricsFeed(loop, std::move(metrics), options), worker_(worker) {
  worker_->set_observer(this);
  Start();
}

DecodeMetricsFeed::~DecodeMetricsFeed() { worker_->set_observer(nullptr); }

void DecodeMetricsFeed::Sample() {
  SampleStatus(worker_->Status());
  const DecodeWorkerCounters& counters = worker_->counters();
  CountRequests(counters.requests_finished, counters.requests_refused, counters.requests_cancelled,
                counters.requests_failed);
  CountTransfers(counters.hand_offs_whole, counters.hand_off_attempts_failed,
                 counters.hand_offs_cancelled);
  CountTransferBytes("received", counters.kv_bytes_received);
  metrics_.steps_total.RaiseTo(static_cast<double>(counters.steps));
  metrics_.tokens_total.With({"prompt"}).RaiseTo(static_cast<double>(counters.tokens_prefilled));
  metrics_.tokens_total.With({"cached"}).RaiseTo(static_cast<double>(counters.tokens_cached));
  metrics_.tokens_total.With({"output"}).RaiseTo(static_cast<double>(counters.tokens_generated));
  metrics_.local_prefills_total.With({"short"}).RaiseTo(
      static_cast<double>(counters.local_prefills - counters.local_fallbacks));
  metrics_.local_prefills_total.With({"fallback"})
      .RaiseTo(static_cast<double>(counters.local_fallbacks));
  metrics_.preemptions_total.RaiseTo(static_cast<double>(worker_->preemptions()));
  metrics_.links_fenced_total.RaiseTo(static_cast<double>(worker_->links_fenced()));
  metrics_.cancel_to_free_seconds_max.Set(Seconds(counters.cancel_to_free_us_max));
  metrics_.stale_messages_total.With({"prefill_event"})
      .RaiseTo(static_cast<double>(counters.stale_messages));
  metrics_.errors_total.With({"digest_mismatch"})
      .RaiseTo(static_cast<double>(counters.digest_mismatches));
}

void DecodeMetricsFeed::OnFirstToken(const GenerateEvent::Timing& timing,
                                     const std::string& length_class) {
  const auto observe = [&](absl::string_view part, int64_t duration_us) {
    metrics_.first_token_part_seconds.With({length_class, part}).Observe(Seconds(duration_us));
  };
  observe("queue", timing.queue_us());
  observe("prefill", timing.prefill_us());
  observe("transfer", timing.transfer_exposed_us());
  observe("first_decode", timing.first_decode_us());
  if (timing.path() == "remote") {
    metrics_.transfer_seconds.With({transport_}).Observe(Seconds(timing.kv_us()));
  }
}

void DecodeMetricsFeed::OnStep(int64_t rows, int64_t step_us) {
  metrics_.step_seconds.Observe(Seconds(step_us));
}

void DecodeMetricsFeed::OnCancelledFree(int64_t since_cancel_us) {
  metrics_.cancel_to_free_seconds.Observe(Seconds(since_cancel_us));
}

}  // namespace longhaul
