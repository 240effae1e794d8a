// PrefillMetricsFeed: publishes what a PrefillWorker does. Made, used and destroyed on the worker's
// Loop, before the worker.
#pragma once

#include <cstdint>

#include "common/engine/worker_metrics_feed.h"
#include "prefill_worker/prefill_worker.h"

namespace longhaul {

class PrefillMetricsFeed final : public WorkerMetricsFeed, private PrefillWorker::Observer {
 public:
  PrefillMetricsFeed(Loop* loop, PrefillWorker* worker, WorkerMetrics metrics,
                     const WorkerMetricsFeedOptions& options);
  ~PrefillMetricsFeed() override;

 private:
  void Sample() override;
  void OnStep(int64_t compute_us) override;
  void OnCancelledFree(int64_t since_cancel_us) override;

  PrefillWorker* const worker_;
};

}  // namespace longhaul
