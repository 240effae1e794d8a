#include "common/engine/model_executor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace longhaul {
namespace {

void AddPart(const StepSequence& sequence, int64_t first, int64_t tokens, Phase phase,
             Batch& batch) {
  if (tokens == 0) return;
  BatchSequence part;
  part.phase = phase;
  part.row = batch.rows();
  part.tokens = tokens;
  part.position = sequence.position + first;
  part.blocks = sequence.blocks;
  batch.sequences.push_back(part);
  batch.tokens.insert(batch.tokens.end(), sequence.tokens.begin() + first,
                      sequence.tokens.begin() + first + tokens);
}

// Tokens come from clients by way of other processes; a table has no row for the wrong ones.
absl::Status CheckTokens(const StepSequence& sequence, int64_t vocab) {
  for (const int32_t token : sequence.tokens) {
    if (token < 0 || token >= vocab) {
      return absl::InvalidArgumentError(absl::StrCat("token ", token, " is not of this model; its ",
                                                     "tokens are 0 to ", vocab - 1));
    }
  }
  return absl::OkStatus();
}

// How many of a sequence's tokens, its last ones, are decode rows.
int64_t DecodeRows(const StepSequence& sequence) {
  if (sequence.replay) return static_cast<int64_t>(sequence.tokens.size());
  return sequence.sample ? 1 : 0;
}

// The sequences' tokens as rows. The spans point into the plan.
Batch MakeBatch(absl::Span<const StepSequence* const> sequences) {
  Batch batch;
  for (const StepSequence* sequence : sequences) {
    const int64_t tokens = static_cast<int64_t>(sequence->tokens.size());
    LH_CHECK(tokens > 0, absl::StrCat("sequence ", sequence->id, " has no token to run"));
    AddPart(*sequence, 0, tokens - DecodeRows(*sequence), Phase::kPrefill, batch);
  }
  batch.prefill_rows = batch.rows();
  for (const StepSequence* sequence : sequences) {
    const int64_t tokens = static_cast<int64_t>(sequence->tokens.size());
    for (int64_t row = tokens - DecodeRows(*sequence); row < tokens; ++row) {
      AddPart(*sequence, row, 1, Phase::kDecode, batch);
    }
  }
  return batch;
}

// One for each decode row, in order; of a replay only the last row's token counts. The spans point
// into the plan.
std::vector<SampleRow> MakeSampleRows(absl::Span<const StepSequence* const> sequences) {
  std::vector<SampleRow> rows;
  for (const StepSequence* sequence : sequences) {
    const int64_t decode_rows = DecodeRows(*sequence);
    LH_CHECK(decode_rows == 0 || sequence->sampling != nullptr,
             absl::StrCat("sequence ", sequence->id, " samples without parameters"));
    for (int64_t left = decode_rows - 1; left >= 0; --left) {
      SampleRow row;
      row.params = sequence->sampling.get();
      row.output_position =
          sequence->position + static_cast<int64_t>(sequence->tokens.size()) - left;
      if (left == 0) {
        row.history = sequence->history;
        row.history_prompt_tokens = sequence->history_prompt_tokens;
        row.banned = sequence->banned;
      }
      rows.push_back(row);
    }
  }
  return rows;
}

}  // namespace

// Shared by the two loops: the plan and result pass from one to the other by posting, the rest
// belongs to the owner's.
struct ModelExecutor::Step {
  StepPlan plan;
  StepResult result;
  LayerDone layer_done;
  Done done;
  bool dropped = false;  // the executor is gone
};

ModelExecutor::ModelExecutor(Loop& owner, Backend& backend, Decoder& decoder, KvPool pool,
                             ThreadLoopOptions thread)
    : owner_(owner),
      backend_(backend),
      decoder_(decoder),
      pool_(pool),
      device_thread_(std::move(thread)) {}

ModelExecutor::~ModelExecutor() {
  device_thread_.Stop();
  if (under_way_ != nullptr) under_way_->dropped = true;
}

void ModelExecutor::Execute(StepPlan plan, LayerDone layer_done, Done done) {
  LH_CHECK(under_way_ == nullptr, absl::StrCat("step ", plan.step, " begins while another runs"));
  under_way_ = std::make_shared<Step>();
  under_way_->plan = std::move(plan);
  under_way_->layer_done = std::move(layer_done);
  under_way_->done = std::move(done);
  device_thread_.Post([this, step = under_way_] { RunOnDevice(step); });
}

void ModelExecutor::RunOnDevice(const std::shared_ptr<Step>& step) {
  const int64_t start_us = device_thread_.NowUs();
  const StepPlan& plan = step->plan;
  StepResult& result = step->result;
  result.step = plan.step;
  std::vector<const StepSequence*> valid;
  for (const StepSequence& sequence : plan.sequences) {
    StepResult::Sequence& out = result.sequences.emplace_back();
    out.id = sequence.id;
    out.status = CheckTokens(sequence, decoder_.config().vocab);
    if (out.status.ok()) valid.push_back(&sequence);
  }
  if (!valid.empty()) RunValid(step, valid);
  result.compute_us = device_thread_.NowUs() - start_us;
  owner_.Post([this, step] {
    if (step->dropped) return;
    under_way_ = nullptr;
    step->done(std::move(step->result));
  });
}

void ModelExecutor::RunValid(const std::shared_ptr<Step>& step,
                             absl::Span<const StepSequence* const> sequences) {
  const Batch batch = MakeBatch(sequences);
  std::vector<SampleRow> rows = MakeSampleRows(sequences);

  const auto announce = [&](int layer) {
    if (step->layer_done == nullptr) return;
    owner_.Post([step, layer] {
      if (!step->dropped) step->layer_done(layer);
    });
  };
  // Layers are announced as soon as they are seen to be stored; on a device that runs behind its
  // queue, those that were not yet are waited for after the whole step has been queued.
  std::vector<DeviceEvent> stored;
  int announced = 0;
  const auto layer_stored = [&](int layer, DeviceEvent event) {
    stored.push_back(event);
    while (announced <= layer && backend_.IsDone(stored[announced])) announce(announced++);
  };
  absl::StatusOr<std::vector<absl::StatusOr<SampledToken>>> sampled =
      decoder_.Run(batch, pool_, absl::MakeSpan(rows), layer_stored);
  for (; announced < static_cast<int>(stored.size()); ++announced) {
    backend_.Wait(stored[announced]);
    announce(announced);
  }
  backend_.Wait(backend_.Record());

  size_t next_sampled = 0;
  size_t next = 0;
  for (StepResult::Sequence& out : step->result.sequences) {
    if (!out.status.ok()) continue;
    const StepSequence& sequence = *sequences[next++];
    next_sampled += DecodeRows(sequence);
    if (!sampled.ok()) {
      out.status = sampled.status();
    } else if (sequence.sample) {
      absl::StatusOr<SampledToken>& token = (*sampled)[next_sampled - 1];
      if (token.ok()) {
        out.sampled = *std::move(token);
      } else {
        out.status = token.status();
      }
    }
  }
}

}  // namespace longhaul
