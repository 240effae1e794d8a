// PrefillScheduler: which prompt computes its next chunk, and how large the chunk is. Prefill
// workers have one for all they do, decode workers for the prompts that they compute themselves.
// Pure: facts in, plan out.
//
// Least relative slack first: slack is the time a prompt could still wait and meet its deadline,
// and relative to what the prompt takes by itself a short one runs out of it sooner. So a short
// prompt overtakes a long one at the next chunk boundary, and the long one, whose slack falls while
// it waits, cannot starve. (Agrawal et al., "No Request Left Behind", arXiv 2409.17264, call the
// rule LARS.)
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>

#include "common/engine/cost_model.h"
#include "common/engine/step_plan.h"

namespace longhaul {

struct PrefillSchedulerOptions {
  double deadline_scale = 4.0;  // a prompt is due after this many times what it takes alone
  double chunk_target_us =
      100'000;  // what a chunk should take: the longest a short prompt waits for a long one
  int64_t chunk_tokens_max = 1024;
  int block_tokens = 16;  // chunks end on block borders, but for a prompt's last
};

class PrefillScheduler {
 public:
  struct Chunk {
    SequenceId id = 0;
    int64_t position = 0;
    int64_t tokens = 0;
  };

  // `cost` outlives the scheduler; the owner feeds it what chunks took.
  PrefillScheduler(PrefillSchedulerOptions options, const CostModel* cost)
      : options_(options), cost_(cost) {}

  // Positions [position, end) of `id` are to be computed; position < end.
  void Add(SequenceId id, int64_t position, int64_t end, int64_t now_us);
  // Unknown ids are ignored.
  void Remove(SequenceId id) { jobs_.erase(id); }

  // The chunk to run now: it takes the target, or `room_us` where that is less, but has at least a
  // block. Does not change the scheduler.
  std::optional<Chunk> Next(int64_t now_us,
                            double room_us = std::numeric_limits<double>::infinity()) const;
  // The chunk was computed; a prompt at its end leaves the scheduler.
  void Advance(const Chunk& chunk);

  int64_t jobs() const { return static_cast<int64_t>(jobs_.size()); }
  // Compute time of all that waits.
  double queued_us() const;

 private:
  struct Job {
    int64_t position = 0;
    int64_t end = 0;
    double alone_us = 0;  // predicted, when it came
    double due_us = 0;
  };
  double RelativeSlack(const Job& job, int64_t now_us) const;

  const PrefillSchedulerOptions options_;
  const CostModel* const cost_;
  std::map<SequenceId, Job> jobs_;  // in order of arrival, which breaks ties
};

}  // namespace longhaul
