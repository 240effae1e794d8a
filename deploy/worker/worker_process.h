// WorkerProcess: what the main of a worker builds its worker on: the model, the wire, the worker's
// loop, its metrics, and its faces to others, each by the flags that all workers have. Used by the
// main's own thread.
#pragma once

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "common/metrics/metric_registry.h"
#include "common/metrics/worker_metrics.h"
#include "common/rpc/rpc_server.h"
#include "common/runtime/thread_loop.h"
#include "deploy/worker/kv_wire.h"
#include "deploy/worker/model_flags.h"
#include "deploy/worker/model_stack.h"

namespace longhaul {

class WorkerProcess {
 public:
  // A process's life: makes all of it ready, runs `work`, which builds the worker, Serves, and
  // takes the worker down again, and takes down the rest. First in a main, once the flags are
  // known; the name is for logs, headers and metrics. Errors: what is wrong with the machine or the
  // flags, and what `work` returns.
  static absl::Status Run(WorkerRole role, const std::string& name,
                          absl::FunctionRef<absl::Status(WorkerProcess&)> work);

  const std::string& name() const { return name_; }
  ModelStack& stack() { return *stack_; }
  const WorkerModel& model() const { return stack_->model(); }
  const Transport& transport() const { return *wire_->transport(); }
  // What this worker and its peers must agree on.
  Fingerprint fingerprint() const;
  // gRPC's threads may share it: a call may end after its client has gone.
  const std::shared_ptr<ThreadLoop>& loop() const { return loop_; }
  const WorkerMetrics& metrics() const { return metrics_; }
  WorkerMetricsFeedOptions FeedOptions() const { return stack_->FeedOptions(transport()); }

  // --listen, for the worker's gRPC server.
  static std::string ListenAddress();

  // Listens for operators, tells the launcher, waits for a signal to stop, and drains: calls
  // `drain` on the loop, and gives what is under way --drain_s. At its end `server` is gone.
  absl::Status Serve(absl::StatusOr<std::unique_ptr<RpcServer>> server,
                     absl::FunctionRef<void()> drain);

 private:
  WorkerProcess(WorkerRole role, const std::string& name, ModelStack* stack, KvWire* wire);
  ~WorkerProcess();

  const std::string role_;
  const std::string name_;
  ModelStack* const stack_;
  KvWire* const wire_;
  MetricRegistry registry_;
  WorkerMetrics metrics_;
  const std::shared_ptr<ThreadLoop> loop_;
};

}  // namespace longhaul
