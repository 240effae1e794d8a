// KvStubExecutor: an Executor whose tokens depend on every KV byte it reads. Running a position
// writes its slab bytes as a hash of the KV of the position before and the token; sampling hashes
// the whole KV of the sequence, read through the block table. So a stale, swapped, missing or
// foreign block changes the text, which makes a plain comparison of texts a proof of the KV path.
// Time comes from a cost model.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "common/engine/cost_model.h"
#include "common/engine/executor.h"
#include "common/model/sharded_kv_pool.h"
#include "common/runtime/loop.h"

namespace longhaul {

class KvStubExecutor final : public Executor {
 public:
  // Lives on `loop`. `pool` is host memory; `vocab` > 1 bounds the tokens, of which 0 is never
  // chosen.
  KvStubExecutor(Loop* loop, const ShardedKvPool& pool, int32_t vocab, const CostModel& cost);
  ~KvStubExecutor() override;

  void Execute(StepPlan plan, LayerDone layer_done, Done done) override;

 private:
  struct Step;
  void RunLayer(const std::shared_ptr<Step>& step, int layer);
  void StorePosition(int layer, const StepSequence& sequence, int64_t position);
  uint64_t HashPosition(int layer, const StepSequence& sequence, int64_t position) const;
  std::byte* RunAt(int rank, int layer, const StepSequence& sequence, int64_t position, int head,
                   bool value) const;
  // body(rank) for each rank that holds the head.
  void ForRanksOf(int head, absl::FunctionRef<void(int)> body) const;

  Loop* const loop_;
  const ShardedKvPool pool_;
  const int32_t vocab_;
  const CostModel cost_;
  std::shared_ptr<bool> alive_;
};

}  // namespace longhaul
