// Executor: the door to "run this step". Makers: the model on a backend (ModelExecutor), a stub
// whose tokens depend on every KV byte it reads and whose time comes from a cost model
// (KvStubExecutor).
#pragma once

#include "absl/functional/any_invocable.h"
#include "common/engine/step_plan.h"

namespace longhaul {

class Executor {
 public:
  // Called after each layer's KV of the step is stored and readable by the transport: layer 0, 1,
  // ... in order.
  using LayerDone = absl::AnyInvocable<void(int layer)>;
  using Done = absl::AnyInvocable<void(StepResult)>;

  virtual ~Executor() = default;

  // Starts one step; at most one is under way. Called on the owner's Loop; `layer_done` (may be
  // null) and `done` are called there too.
  virtual void Execute(StepPlan plan, LayerDone layer_done, Done done) = 0;
};

}  // namespace longhaul
