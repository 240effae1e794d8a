// Publishes what a UcxTransport has dropped: its counters belong to the transfer thread, so they
// are read there.
#pragma once

#include "common/metrics/worker_metrics.h"
#include "common/runtime/loop.h"
#include "kv_transfer/ucx/ucx_transport.h"

namespace longhaul {

// Once a second until `transfer_loop` stops; the transport and the registry of `metrics` outlive
// the loop. Any thread.
void PublishUcxDrops(Loop* transfer_loop, const UcxTransport* transport, WorkerMetrics metrics);

}  // namespace longhaul
