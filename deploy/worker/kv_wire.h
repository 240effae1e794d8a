// KvWire: a worker process's way out for KV: its transport, by the flags that all workers have, and
// the transfer thread that drives it.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/metrics/worker_metrics.h"
#include "common/model/kv_memory.h"
#include "common/runtime/thread_loop.h"
#include "kernels/choose_backend.h"
#include "kv_transfer/self_test.h"
#include "kv_transfer/wire_transport.h"

namespace longhaul {

class KvWire {
 public:
  // For BackendChoice: why this process's wire cannot carry a GPU's memory, OK when it can.
  static absl::Status CarriesDeviceMemory();

  // `memory`, where all KV lies, is of `choice` and outlives the wire. Measures a link and logs its
  // path and speed; a slow or broken one is no error: the worker is still of use. Errors:
  // InvalidArgument for flags that do not go together, those of the transport's maker.
  static absl::StatusOr<std::unique_ptr<KvWire>> Open(KvMemory* memory,
                                                      const BackendChoice& choice);

  // Device memory is measured with this program as a second process: whether this is it, and its
  // whole work.
  static bool IsSelfTest();
  static absl::Status ServeSelfTest(KvMemory* memory);

  WireTransport* transport() { return transport_.get(); }
  ThreadLoop& loop() { return loop_; }

  // What the self-test measured, and what is dropped from now on, once a second until the loop
  // stops. The registry of `metrics` outlives that.
  void Publish(WorkerMetrics metrics);

 private:
  explicit KvWire(std::unique_ptr<WireTransport> transport);
  absl::StatusOr<LinkSpeed> Measure(KvMemory* memory, int device);

  const std::unique_ptr<WireTransport> transport_;
  ThreadLoop loop_;
  absl::StatusOr<LinkSpeed> speed_;
};

}  // namespace longhaul
