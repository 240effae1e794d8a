#include "deploy/worker/model_stack.h"

#include "common/base/status.h"

namespace longhaul {

absl::Status ModelStack::Load(const WorkerModelOptions& options) {
  LH_ASSIGN_OR_RETURN(model_, WorkerModel::Load(ranks_, options));
  return absl::OkStatus();
}

void ModelStack::Begin(Loop& loop, Loop& transfer_loop, Transport* transport) {
  engine_ = std::make_unique<TransferEngine>(&loop, &transfer_loop, transport, &kv_memory());
  executor_ = std::make_unique<ModelExecutor>(loop, model_->ranks(), spin_us());
}

void ModelStack::End() {
  executor_.reset();
  engine_.reset();
}

}  // namespace longhaul
