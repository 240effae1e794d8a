// ModelExecutor: the Executor that runs a model. It owns a device thread for each rank; the rank's
// backend and decoder are called there and nowhere else. All ranks run every step. A layer is told
// of when the last of them has stored it, and the step's tokens are rank 0's.
//
// A sampled sequence's last token is a decode row; every other token is a prefill row (see Phase).
// So the tokens that come out do not depend on how the scheduler cut the prompt. A sequence with a
// token that the model does not have gets InvalidArgument and is left out of the step; layer_done
// is not called when nothing is left.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/engine/executor.h"
#include "common/engine/model_rank.h"
#include "common/runtime/thread_loop.h"

namespace longhaul {

// For the loops of a process whose model computes on a device of its own: they stay awake from one
// step to the next, since waking up takes a thread up to a tenth of a millisecond, and sleep when
// no step follows.
inline constexpr int64_t kDeviceLoopSpinUs = 20'000;

class ModelExecutor final : public Executor {
 public:
  // `owner` is the loop that calls Execute and receives the callbacks. What `ranks` points to must
  // not be used by anybody else from now on; it and the pools' memory must outlive the executor. A
  // rank's device thread is worker 0 of its CPU backend; it spins for `spin_us`
  // (ThreadLoopOptions).
  ModelExecutor(Loop& owner, std::vector<ModelRank> ranks, int64_t spin_us = 0);
  // On the owner's loop. Waits for the step under way; its remaining callbacks are dropped.
  ~ModelExecutor() override;

  void Execute(StepPlan plan, LayerDone layer_done, Done done) override;

 private:
  struct Step;
  void RunOnDevice(const std::shared_ptr<Step>& step, const ModelRank& rank);
  void RunValid(const std::shared_ptr<Step>& step, const ModelRank& rank);
  // On rank 0's device thread.
  static void TakeResults(Step& step,
                          absl::StatusOr<std::vector<absl::StatusOr<SampledToken>>> sampled);

  Loop& owner_;
  const std::vector<ModelRank> ranks_;
  std::shared_ptr<Step> under_way_;                          // owner's loop only
  std::vector<std::unique_ptr<ThreadLoop>> device_threads_;  // last: stop before the rest goes
};

}  // namespace longhaul
