// One step of a model over several sequences: what a scheduler hands to an Executor, and what comes
// back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "common/model/kv_layout.h"
#include "common/model/sampling.h"

namespace longhaul {

using SequenceId = uint64_t;  // unique in a process's life

struct StepSequence {
  SequenceId id = 0;
  std::vector<int32_t> tokens;  // to run now, at positions [position, position + size)
  int64_t position = 0;         // tokens before this one are in the KV blocks
  std::vector<BlockId> blocks;  // covers [0, position + tokens.size())
  bool sample = false;          // sample the next token from the last row
  // Every token is a decode row: outputs that are computed again must leave the bits they left the
  // first time. Otherwise only a sampled sequence's last token is one.
  bool replay = false;
  std::shared_ptr<const SamplingParams> sampling;  // set when `sample` or `replay`
  std::vector<int32_t> history;  // prompt and output so far, only when a penalty is set
  int64_t history_prompt_tokens = 0;
  std::vector<int32_t> banned;  // never chosen in this step
};

struct StepPlan {
  uint64_t step = 0;  // counts up in a process's life
  std::vector<StepSequence> sequences;
};

struct StepResult {
  struct Sequence {
    SequenceId id = 0;
    SampledToken sampled;  // token -1 unless the plan asked to sample and `status` is OK
    absl::Status status;   // why no token could be sampled: ends this sequence, not the others
  };
  uint64_t step = 0;
  std::vector<Sequence> sequences;  // in the plan's order
  int64_t compute_us = 0;           // time on the device
};

}  // namespace longhaul
