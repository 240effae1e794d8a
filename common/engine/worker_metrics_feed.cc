#include "common/engine/worker_metrics_feed.h"

#include <utility>

namespace longhaul {

WorkerMetricsFeed::WorkerMetricsFeed(Loop* loop, WorkerMetrics metrics,
                                     const WorkerMetricsFeedOptions& options)
    : metrics_(std::move(metrics)), transport_(options.transport), loop_(loop) {
  metrics_.kv_block_bytes.Set(static_cast<double>(options.kv_block_bytes));
}

WorkerMetricsFeed::~WorkerMetricsFeed() { loop_->CancelTimer(timer_); }

void WorkerMetricsFeed::Start() { Tick(); }

void WorkerMetricsFeed::Tick() {
  Sample();
  timer_ = loop_->PostAfter(kPeriodUs, [this] { Tick(); });
}

void WorkerMetricsFeed::SampleStatus(const WorkerStatus& status) {
  const int64_t free = status.blocks_total() - status.blocks_live() - status.blocks_cached();
  metrics_.kv_blocks.With({"free"}).Set(static_cast<double>(free));
  metrics_.kv_blocks.With({"live"}).Set(static_cast<double>(status.blocks_live()));
  metrics_.kv_blocks.With({"cached"}).Set(static_cast<double>(status.blocks_cached()));
  metrics_.requests_running.Set(static_cast<double>(status.requests_running()));
  metrics_.requests_queued.Set(static_cast<double>(status.requests_queued()));
  metrics_.queue_predicted_seconds.Set(status.queue_predicted_us() * 1e-6);
}

void WorkerMetricsFeed::CountRequests(int64_t finished, int64_t refused, int64_t cancelled,
                                      int64_t failed) {
  metrics_.requests_total.With({"finished"}).RaiseTo(static_cast<double>(finished));
  metrics_.requests_total.With({"refused"}).RaiseTo(static_cast<double>(refused));
  metrics_.requests_total.With({"cancelled"}).RaiseTo(static_cast<double>(cancelled));
  metrics_.requests_total.With({"failed"}).RaiseTo(static_cast<double>(failed));
}

void WorkerMetricsFeed::CountTransfers(int64_t ok, int64_t failed, int64_t cancelled) {
  metrics_.transfers_total.With({transport_, "ok"}).RaiseTo(static_cast<double>(ok));
  metrics_.transfers_total.With({transport_, "failed"}).RaiseTo(static_cast<double>(failed));
  metrics_.transfers_total.With({transport_, "cancelled"}).RaiseTo(static_cast<double>(cancelled));
}

void WorkerMetricsFeed::CountTransferBytes(absl::string_view direction, int64_t bytes) {
  metrics_.transfer_bytes_total.With({transport_, direction}).RaiseTo(static_cast<double>(bytes));
}

}  // namespace longhaul
