#include "common/engine/kv_stub_executor.h"

#include <cstring>
#include <utility>
#include <vector>

#include "common/base/hash.h"

namespace longhaul {

struct KvStubExecutor::Step {
  StepPlan plan;
  LayerDone layer_done;
  Done done;
  int64_t layer_us = 0;
  int64_t started_us = 0;
};

KvStubExecutor::KvStubExecutor(Loop* loop, const ShardedKvPool& pool, int32_t vocab,
                               const CostModel& cost)
    : loop_(loop), pool_(pool), vocab_(vocab), cost_(cost), alive_(std::make_shared<bool>(true)) {}

KvStubExecutor::~KvStubExecutor() { *alive_ = false; }

void KvStubExecutor::Execute(StepPlan plan, LayerDone layer_done, Done done) {
  double step_us = 0;
  int64_t rows = 0, context_tokens = 0;
  for (const StepSequence& sequence : plan.sequences) {
    if (sequence.sample) {
      ++rows;
      context_tokens += sequence.position;
    } else {
      step_us += cost_.PrefillUs(static_cast<int64_t>(sequence.tokens.size()), sequence.position);
    }
  }
  step_us += cost_.DecodeStepUs(rows, context_tokens);
  auto step = std::make_shared<Step>();
  step->plan = std::move(plan);
  step->layer_done = std::move(layer_done);
  step->done = std::move(done);
  step->layer_us = static_cast<int64_t>(step_us) / pool_.layout.layers + 1;
  step->started_us = loop_->NowUs();
  loop_->PostAfter(step->layer_us, [this, alive = alive_, step] {
    if (*alive) RunLayer(step, 0);
  });
}

std::byte* KvStubExecutor::RunAt(int rank, int layer, const StepSequence& sequence,
                                 int64_t position, int head, bool value) const {
  const KvPool pool = pool_.Rank(rank);
  const KvLayout& layout = pool.layout;
  const BlockId block = sequence.blocks[position / layout.block_tokens];
  const int64_t run_bytes = layout.head_dim * BlockBytes(layout.dtype);
  const int64_t row = (value ? layout.kv_heads : 0) + head - pool_.HeadsOf(rank).first;
  return pool.data + layout.SlabOffset(pool.blocks, layer, block) +
         (row * layout.block_tokens + position % layout.block_tokens) * run_bytes;
}

void KvStubExecutor::ForRanksOf(int head, absl::FunctionRef<void(int)> body) const {
  for (int rank = pool_.RankOf(head); rank < pool_.width() && pool_.HeadsOf(rank).first <= head;
       ++rank) {
    body(rank);
  }
}

uint64_t KvStubExecutor::HashPosition(int layer, const StepSequence& sequence,
                                      int64_t position) const {
  const int64_t run_bytes = pool_.layout.head_dim * BlockBytes(pool_.layout.dtype);
  uint64_t hash = static_cast<uint64_t>(layer);
  // Whatever the width, the heads in order; ranks that share a head must hold the same.
  for (int head = 0; head < pool_.layout.kv_heads; ++head) {
    for (const bool value : {false, true}) {
      const std::byte* const run =
          RunAt(pool_.RankOf(head), layer, sequence, position, head, value);
      ForRanksOf(head, [&](int rank) {
        const std::byte* const other = RunAt(rank, layer, sequence, position, head, value);
        if (std::memcmp(run, other, run_bytes) != 0) ++hash;
      });
      hash = Hash64Of(run, run_bytes, hash);
    }
  }
  return hash;
}

void KvStubExecutor::StorePosition(int layer, const StepSequence& sequence, int64_t position) {
  const int64_t run_bytes = pool_.layout.head_dim * BlockBytes(pool_.layout.dtype);
  const int32_t token = sequence.tokens[position - sequence.position];
  uint64_t state = position > 0 ? HashPosition(layer, sequence, position - 1) : 0;
  state = Hash64Of(&token, sizeof(token), state + static_cast<uint64_t>(position));
  std::vector<std::byte> run(run_bytes);
  for (int head = 0; head < pool_.layout.kv_heads; ++head) {
    for (const bool value : {false, true}) {
      for (int64_t at = 0; at < run_bytes; at += static_cast<int64_t>(sizeof(state))) {
        state = Hash64Of(&state, sizeof(state), static_cast<uint64_t>(head * 2 + (value ? 1 : 0)));
        std::memcpy(run.data() + at, &state, std::min<int64_t>(sizeof(state), run_bytes - at));
      }
      ForRanksOf(head, [&](int rank) {
        std::memcpy(RunAt(rank, layer, sequence, position, head, value), run.data(), run_bytes);
      });
    }
  }
}

void KvStubExecutor::RunLayer(const std::shared_ptr<Step>& step, int layer) {
  for (const StepSequence& sequence : step->plan.sequences) {
    const auto end = sequence.position + static_cast<int64_t>(sequence.tokens.size());
    for (int64_t position = sequence.position; position < end; ++position)
      StorePosition(layer, sequence, position);
  }
  if (step->layer_done) step->layer_done(layer);
  if (!*alive_) return;
  if (layer + 1 < pool_.layout.layers) {
    loop_->PostAfter(step->layer_us, [this, alive = alive_, step, layer] {
      if (*alive) RunLayer(step, layer + 1);
    });
    return;
  }
  StepResult result;
  result.step = step->plan.step;
  result.compute_us = loop_->NowUs() - step->started_us;
  for (const StepSequence& sequence : step->plan.sequences) {
    StepResult::Sequence row{.id = sequence.id, .sampled = {}, .status = {}};
    if (sequence.sample) {
      const auto end = sequence.position + static_cast<int64_t>(sequence.tokens.size());
      uint64_t hash = 0;
      for (int read = 0; read < pool_.layout.layers; ++read) {
        for (int64_t position = 0; position < end; ++position) {
          const uint64_t words[2] = {hash, HashPosition(read, sequence, position)};
          hash = Hash64Of(words, sizeof(words));
        }
      }
      row.sampled.token = static_cast<int32_t>(1 + hash % static_cast<uint64_t>(vocab_ - 1));
    }
    result.sequences.push_back(std::move(row));
  }
  step->done(std::move(result));
}

}  // namespace longhaul
