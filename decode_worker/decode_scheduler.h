// DecodeScheduler: which sequences decode together, who gets KV blocks, who must step back. Pure:
// facts in, plan out.
//
// A sequence waits until the blocks of its whole prompt are reserved, fills (its KV arrives from a
// prefill worker or is computed here), then runs: one token a step until it ends. A running
// sequence grows block by block; when none is left, the sequence that came last steps back: it
// keeps its tokens, gives up its blocks (which stay cached as long as nobody needs them), and is
// admitted again before newer ones. Since every sequence fits the pool by itself, the oldest always
// gets on.
//
// Prompts that are computed here run in chunks within the steps, one chunk a step, in the order of
// PrefillScheduler. Beside running sequences a chunk has the time that they leave of the step's
// target, so the target bounds their time per token, whatever prompts come.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/engine/cost_model.h"
#include "common/engine/prefill_scheduler.h"
#include "common/engine/step_plan.h"
#include "common/kv/block_manager.h"

namespace longhaul {

struct DecodeSchedulerOptions {
  int64_t batch_sequences_max = 64;  // running at once
  int64_t sequences_max = 1024;      // accepted and not ended
  int64_t replay_rows_max = 32;      // outputs computed again in one step
  int64_t context_tokens_max = 0;    // of the model
  // What a step should take that computes a chunk beside running sequences. A chunk has at least a
  // block, so a step may take longer where the running sequences alone leave less than that.
  double step_target_us = 100'000;
  PrefillSchedulerOptions prefill;  // of the prompts computed here; blocks are the pool's
};

// What a request is to the scheduler.
struct DecodeRequest {
  std::vector<int32_t> tokens;  // prompt, then outputs that were emitted before a replay
  int64_t prompt_tokens = 0;
  int64_t output_tokens_max = 0;  // in all
  int64_t output_tokens_min = 0;
  std::vector<int32_t> stop_tokens;  // end tokens included
  std::shared_ptr<const SamplingParams> sampling;
  uint64_t cache_salt = 0;
};

class DecodeScheduler {
 public:
  struct Admission {
    SequenceId id = 0;
    int64_t cached_tokens = 0;  // KV of [0, cached_tokens) is here already
    int64_t fill_end = 0;       // KV of [cached_tokens, fill_end) is wanted; equal: runs at once
  };
  struct Output {
    SequenceId id = 0;
    SampledToken token;
    bool finished = false;
    bool stopped = false;  // by a stop token, else by length
    absl::Status status;   // not OK: the sequence failed and is gone
  };

  // `blocks` and `cost` outlive the scheduler; `blocks` is shared with nobody else, and the owner
  // feeds `cost` what steps took.
  DecodeScheduler(DecodeSchedulerOptions options, BlockManager* blocks, const CostModel* cost);

  // InvalidArgument: it could never be served here; ResourceExhausted: too many sequences.
  absl::Status Add(SequenceId id, DecodeRequest request);

  // The next waiting sequence whose prompt has its blocks reserved now; it is filling from here on,
  // or running when nothing is to fill. Call until nullopt, whenever blocks may have become
  // available.
  std::optional<Admission> AdmitNext();

  // Filling: blocks for positions below `position_end`, from the reservation. Returns all blocks so
  // far.
  absl::Span<const BlockId> GrowFill(SequenceId id, int64_t position_end);
  // Filling: KV of every position below `position_end` is stored and checked. At the fill's end the
  // sequence runs.
  void Filled(SequenceId id, int64_t position_end);
  // Filling: compute the rest here, in chunks within the steps.
  void FillLocally(SequenceId id, int64_t now_us);

  // The next step, empty when there is nothing to run. At most one step is under way.
  StepPlan Plan(int64_t now_us);
  std::vector<Output> Commit(const StepResult& result);
  // Sequences that stepped back in the last Plan.
  int64_t preemptions() const { return preemptions_; }

  // Forgets a sequence, if it is known. Its blocks are released at once, or after the step under
  // way if that uses them.
  void Remove(SequenceId id);
  // The same for a filling sequence whose blocks a transfer may still write: the caller owns them
  // from here on.
  std::vector<BlockId> RemoveKeepingBlocks(SequenceId id);

  int64_t running() const;
  // Of the time, for prompts computed here: what the running sequences leave of the step's target.
  double prompt_share() const;
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t sequences() const { return static_cast<int64_t>(sequences_.size()); }
  const std::vector<int32_t>& tokens(SequenceId id) const { return sequences_.at(id).tokens; }
  // Positions of `id` whose KV is stored.
  int64_t kv_tokens(SequenceId id) const { return sequences_.at(id).kv_tokens; }

 private:
  enum class State : uint8_t { kWaiting, kFilling, kRunning };
  struct Sequence {
    std::vector<int32_t> tokens;
    DecodeRequest request;  // its tokens are moved out
    State state = State::kWaiting;
    std::vector<BlockId> blocks;
    int64_t kv_tokens = 0;  // positions stored
    int64_t published = 0;  // blocks named in the cache
    int64_t reserved = 0;   // blocks promised for the fill, not taken yet
    bool in_step = false;
    bool removed = false;     // while in a step
    int64_t step_tokens = 0;  // run in the step under way
    // What is filled: the prompt but for its last token, which is the first decode row. Outputs
    // that were emitted before are run again as decode rows.
    int64_t fill_end() const { return request.prompt_tokens - 1; }
    int64_t outputs() const { return static_cast<int64_t>(tokens.size()) - request.prompt_tokens; }
  };

  int64_t unreserved() const { return blocks_->available() - reserved_; }
  void StepBack(SequenceId id, Sequence& sequence);
  bool GrowRunning(SequenceId id, Sequence& sequence);
  int64_t RunningRows(const Sequence& sequence) const;
  StepSequence RunningStep(SequenceId id, const Sequence& sequence) const;
  // What `rows` running sequences with `context_tokens` before them leave of the step's target.
  double RoomUs(int64_t rows, int64_t context_tokens) const;
  StepSequence ChunkStep(const PrefillScheduler::Chunk& chunk);
  void Publish(Sequence& sequence);
  void Release(Sequence& sequence);

  const DecodeSchedulerOptions options_;
  BlockManager* const blocks_;
  const CostModel* const cost_;
  PrefillScheduler prefill_;                  // the filling sequences that are computed here
  std::map<SequenceId, Sequence> sequences_;  // ids grow with arrival
  std::deque<SequenceId> waiting_;            // in order of arrival
  int64_t reserved_ = 0;                      // over all sequences
  int64_t preemptions_ = 0;
  uint64_t next_step_ = 1;
};

}  // namespace longhaul
