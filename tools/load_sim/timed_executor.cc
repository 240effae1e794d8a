#include "tools/load_sim/timed_executor.h"

#include <memory>
#include <utility>

namespace longhaul {

void TimedExecutor::Execute(StepPlan plan, LayerDone layer_done, Done done) {
  double step_us = 0;
  int64_t rows = 0, context_tokens = 0;
  StepResult result;
  result.step = plan.step;
  for (const StepSequence& sequence : plan.sequences) {
    if (sequence.sample || sequence.replay) {
      ++rows;
      context_tokens += sequence.position;
    } else {
      step_us += cost_.PrefillUs(static_cast<int64_t>(sequence.tokens.size()), sequence.position);
    }
    StepResult::Sequence& row = result.sequences.emplace_back();
    row.id = sequence.id;
    if (sequence.sample) row.sampled.token = 1;
  }
  result.compute_us = static_cast<int64_t>(step_us + cost_.DecodeStepUs(rows, context_tokens)) + 1;
  busy_us_ += result.compute_us;
  if (layer_done) {
    const auto told = std::make_shared<LayerDone>(std::move(layer_done));
    for (int layer = 0; layer < layers_; ++layer) {
      loop_->PostAfter(result.compute_us * (layer + 1) / layers_,
                       [told, layer] { (*told)(layer); });
    }
  }
  loop_->PostAfter(
      result.compute_us,
      [done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); });
}

}  // namespace longhaul
