// TimedExecutor: an Executor that computes nothing and takes the time that a cost model says.
#pragma once

#include "common/engine/cost_model.h"
#include "common/engine/executor.h"
#include "common/runtime/loop.h"

namespace longhaul {

class TimedExecutor final : public Executor {
 public:
  // Lives on `loop`, whose tasks do not outlive it. `layers` are told of as done in equal steps.
  TimedExecutor(Loop* loop, int layers, const CostModel& cost)
      : loop_(loop), layers_(layers), cost_(cost) {}

  void Execute(StepPlan plan, LayerDone layer_done, Done done) override;

  int64_t busy_us() const { return busy_us_; }

 private:
  Loop* const loop_;
  const int layers_;
  const CostModel cost_;
  int64_t busy_us_ = 0;
};

}  // namespace longhaul
