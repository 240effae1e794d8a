// DecodeMetricsFeed: publishes what a DecodeWorker does. Made, used and destroyed on the worker's
// Loop, before the worker.
#pragma once

#include <cstdint>
#include <string>

#include "common/engine/worker_metrics_feed.h"
#include "decode_worker/decode_worker.h"

namespace longhaul {

class DecodeMetricsFeed final : public WorkerMetricsFeed, private DecodeWorker::Observer {
 public:
  DecodeMetricsFeed(Loop* loop, DecodeWorker* worker, WorkerMetrics metrics,
                    const WorkerMetricsFeedOptions& options);
  ~DecodeMetricsFeed() override;

 private:
  void Sample() override;
  void OnFirstToken(const GenerateEvent::Timing& timing, const std::string& length_class) override;
  void OnStep(int64_t rows, int64_t step_us) override;
  void OnCancelledFree(int64_t since_cancel_us) override;

  DecodeWorker* const worker_;
};

}  // namespace longhaul
