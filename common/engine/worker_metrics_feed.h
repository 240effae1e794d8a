// WorkerMetricsFeed: what the feeds of both kinds of worker share: a timer on the worker's Loop
// that copies what the worker counts into its metrics, five times a second. Lives on that Loop;
// scrapes come on other threads and see the copies. A feed goes before its worker.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "common/metrics/worker_metrics.h"
#include "common/proto/longhaul.pb.h"
#include "common/runtime/loop.h"

namespace longhaul {

// The labels and constants that a worker does not know of itself.
struct WorkerMetricsFeedOptions {
  std::string transport;  // the KV wire's name, a label
  int64_t kv_block_bytes = 0;
};

class WorkerMetricsFeed {
 public:
  static constexpr int64_t kPeriodUs = 200'000;

  WorkerMetricsFeed(const WorkerMetricsFeed&) = delete;
  WorkerMetricsFeed& operator=(const WorkerMetricsFeed&) = delete;
  virtual ~WorkerMetricsFeed();

 protected:
  // `metrics`: handles; their registry outlives the feed.
  WorkerMetricsFeed(Loop* loop, WorkerMetrics metrics, const WorkerMetricsFeedOptions& options);

  // Samples from now on; called once, when the derived feed is whole.
  void Start();
  virtual void Sample() = 0;

  // KV blocks by state, and the queues.
  void SampleStatus(const WorkerStatus& status);
  void CountRequests(int64_t finished, int64_t refused, int64_t cancelled, int64_t failed);
  void CountTransfers(int64_t ok, int64_t failed, int64_t cancelled);
  // direction: "sent" or "received".
  void CountTransferBytes(absl::string_view direction, int64_t bytes);

  WorkerMetrics metrics_;
  const std::string transport_;

 private:
  void Tick();

  Loop* const loop_;
  Loop::TimerId timer_ = 0;
};

}  // namespace longhaul
