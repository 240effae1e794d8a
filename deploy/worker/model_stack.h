// ModelStack: what a worker stands on: the ranks that compute, the model on them, its executor, and
// the engine of its transfers. Made and loaded by a main's own thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/engine/model_executor.h"
#include "common/engine/worker_metrics_feed.h"
#include "common/engine/worker_model.h"
#include "common/model/backend_rank.h"
#include "common/runtime/loop.h"
#include "kv_transfer/transfer_engine.h"
#include "kv_transfer/transport.h"

namespace longhaul {

class ModelStack {
 public:
  // `ranks`: not empty.
  explicit ModelStack(std::vector<BackendRank> ranks) : ranks_(std::move(ranks)) {}

  // Errors: see WorkerModel::Load.
  absl::Status Load(const WorkerModelOptions& options);

  // On `loop`, the worker's; between the two the worker lives. The loops and the transport outlive
  // the end.
  void Begin(Loop& loop, Loop& transfer_loop, Transport* transport);
  void End();

  // Whose memory's kind and thread the transfers are of.
  KvMemory& kv_memory() const { return backend().kv_memory(); }
  bool host_visible() const { return backend().host_visible(); }
  // For the worker's loop (ThreadLoopOptions).
  int64_t spin_us() const { return host_visible() ? 0 : kDeviceLoopSpinUs; }

  const WorkerModel& model() const { return *model_; }  // after Load
  Executor* executor() { return executor_.get(); }
  TransferEngine* engine() { return engine_.get(); }
  WorkerMetricsFeedOptions FeedOptions(const Transport& transport) const {
    return {transport.name(), model_->pool().layout.block_bytes()};
  }

 private:
  Backend& backend() const { return *ranks_[0].backend; }

  const std::vector<BackendRank> ranks_;
  std::unique_ptr<WorkerModel> model_;
  std::unique_ptr<TransferEngine> engine_;
  std::unique_ptr<ModelExecutor> executor_;
};

}  // namespace longhaul
