#include "prefill_worker/prefill_metrics_feed.h"

#include <utility>

namespace longhaul {
namespace {

constexpr double kUs = 1e-6;

}  // namespace

PrefillMetricsFeed::PrefillMetricsFeed(Loop* loop, PrefillWorker* worker, WorkerMetrics metrics,
                                       const WorkerMetricsFeedOptions& options)
    : WorkerMetricsFeed(loop, std::move(metrics), options), worker_(worker) {
  worker_->set_observer(this);
  Start();
}

PrefillMetricsFeed::~PrefillMetricsFeed() { worker_->set_observer(nullptr); }

void PrefillMetricsFeed::Sample() {
  SampleStatus(worker_->Status());
  const PrefillWorkerCounters& counters = worker_->counters();
  CountRequests(counters.prompts_finished, counters.prompts_refused, counters.prompts_cancelled,
                counters.prompts_failed);
  CountTransfers(counters.prompts_finished, counters.transfers_failed,
                 counters.transfers_cancelled);
  CountTransferBytes("sent", counters.bytes_sent);
  metrics_.steps_total.RaiseTo(static_cast<double>(counters.chunks_computed));
  metrics_.tokens_total.With({"prompt"}).RaiseTo(static_cast<double>(counters.tokens_computed));
  metrics_.tokens_total.With({"cached"}).RaiseTo(static_cast<double>(counters.tokens_cached));
  metrics_.links_fenced_total.RaiseTo(static_cast<double>(counters.links_fenced));
  metrics_.cancel_to_free_seconds_max.Set(static_cast<double>(counters.cancel_to_free_us_max) *
                                          kUs);
}

void PrefillMetricsFeed::OnStep(int64_t compute_us) {
  metrics_.step_seconds.Observe(static_cast<double>(compute_us) * kUs);
}

void PrefillMetricsFeed::OnCancelledFree(int64_t since_cancel_us) {
  metrics_.cancel_to_free_seconds.Observe(static_cast<double>(since_cancel_us) * kUs);
}

}  // namespace longhaul
