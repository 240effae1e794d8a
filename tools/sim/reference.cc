#include "tools/sim/reference.h"

#include <numeric>

#include "common/engine/kv_stub_executor.h"
#include "common/runtime/virtual_loop.h"
#include "tools/sim/processes.h"

namespace longhaul {

std::vector<int32_t> ReferenceTokens(const std::vector<int32_t>& prompt, int64_t output_tokens) {
  const int64_t end = static_cast<int64_t>(prompt.size()) + output_tokens;
  const KvLayout layout = SimLayout();
  VirtualLoop loop;
  Dice dice(1);
  SimMemory memory(layout.BlocksFor(end), /*width=*/1, dice);
  KvStubExecutor executor(&loop, memory.pool(), kSimVocab, SimCost());

  std::vector<int32_t> tokens = prompt;
  StepSequence row;
  row.tokens = prompt;
  row.sample = true;
  row.blocks.resize(layout.BlocksFor(end));
  std::iota(row.blocks.begin(), row.blocks.end(), 0);
  while (static_cast<int64_t>(tokens.size()) < end) {
    StepPlan plan;
    plan.sequences.push_back(row);
    executor.Execute(std::move(plan), nullptr, [&](const StepResult& result) {
      tokens.push_back(result.sequences[0].sampled.token);
    });
    loop.RunUntilIdle();
    row.position += static_cast<int64_t>(row.tokens.size());
    row.tokens = {tokens.back()};
  }
  return {tokens.begin() + static_cast<int64_t>(prompt.size()), tokens.end()};
}

}  // namespace longhaul
