// ModelExecutor: the Executor that runs a model. It owns the device thread; the backend and the
// decoder are called there and nowhere else.
//
// A sampled sequence's last token is a decode row; every other token is a prefill row (see Phase).
// So the tokens that come out do not depend on how the scheduler cut the prompt. A sequence with a
// token that the model does not have gets InvalidArgument and is left out of the step; layer_done
// is not called when nothing is left.
#pragma once

#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "common/engine/executor.h"
#include "common/model/decoder.h"
#include "common/runtime/thread_loop.h"

namespace longhaul {

// For the loops of a process whose model computes on a device of its own: they stay awake from one
// step to the next, since waking up takes a thread up to a tenth of a millisecond, and sleep when
// no step follows.
inline constexpr int64_t kDeviceLoopSpinUs = 20'000;

class ModelExecutor final : public Executor {
 public:
  // `owner` is the loop that calls Execute and receives the callbacks. `backend` and `decoder` must
  // not be used by anybody else from now on; they and the pool's memory must outlive the executor.
  // thread.core pins the device thread, which is worker 0 of the CPU backend.
  ModelExecutor(Loop& owner, Backend& backend, Decoder& decoder, KvPool pool,
                ThreadLoopOptions thread);
  // On the owner's loop. Waits for the step under way; its remaining callbacks are dropped.
  ~ModelExecutor() override;

  void Execute(StepPlan plan, LayerDone layer_done, Done done) override;

 private:
  struct Step;
  void RunOnDevice(const std::shared_ptr<Step>& step);
  void RunValid(const std::shared_ptr<Step>& step, absl::Span<const StepSequence* const> sequences);

  Loop& owner_;
  Backend& backend_;
  Decoder& decoder_;
  const KvPool pool_;
  std::shared_ptr<Step> under_way_;  // owner's loop only
  ThreadLoop device_thread_;         // last: stops before the rest goes
};

}  // namespace longhaul
