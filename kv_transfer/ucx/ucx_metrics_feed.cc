#include "kv_transfer/ucx/ucx_metrics_feed.h"

#include <memory>
#include <utility>

namespace longhaul {
namespace {

constexpr int64_t kPeriodUs = 1'000'000;

void Sample(Loop* loop, const UcxTransport* transport,
            const std::shared_ptr<WorkerMetrics>& metrics) {
  const UcxTransport::Counters& counters = transport->counters();
  const auto raise = [&](absl::string_view kind, int64_t total) {
    metrics->stale_messages_total.With({kind}).RaiseTo(static_cast<double>(total));
  };
  raise("late_kv", counters.late_dropped);
  raise("unexpected_kv", counters.unexpected_dropped);
  raise("foreign_kv", counters.foreign_dropped);
  loop->PostAfter(kPeriodUs, [=] { Sample(loop, transport, metrics); });
}

}  // namespace

void PublishUcxDrops(Loop* transfer_loop, const UcxTransport* transport, WorkerMetrics metrics) {
  transfer_loop->Post([=, shared = std::make_shared<WorkerMetrics>(std::move(metrics))] {
    Sample(transfer_loop, transport, shared);
  });
}

}  // namespace longhaul
