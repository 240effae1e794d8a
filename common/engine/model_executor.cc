#include "common/engine/model_executor.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/base/check.h"
#include "common/runtime/run_and_wait.h"

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

// Shared by the loops: the plan passes from the owner's to the others and the result comes back by
// posting; the rest belongs to the owner's.
struct ModelExecutor::Step {
  StepPlan plan;
  std::vector<const StepSequence*> valid;
  StepResult result;                            // rank 0's
  std::unique_ptr<std::atomic<int>[]> storing;  // [layers]: ranks that have not stored it yet
  std::atomic<int> running;                     // ranks
  LayerDone layer_done;
  Done done;
  bool dropped = false;  // the executor is gone
};

ModelExecutor::ModelExecutor(Loop& owner, std::vector<ModelRank> ranks, int64_t spin_us)
    : owner_(owner), ranks_(std::move(ranks)) {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    device_threads_.push_back(std::make_unique<ThreadLoop>(
        ThreadLoopOptions{.name = i == 0 ? "device" : absl::StrCat("device-", i),
                          .core = ranks_[i].core,
                          .spin_us = spin_us}));
  }
}

ModelExecutor::~ModelExecutor() {
  // All ranks come to the step under way, or those that have would wait for the others for ever.
  for (const auto& thread : device_threads_) RunAndWait(*thread, [] {});
  if (under_way_ != nullptr) under_way_->dropped = true;
}

void ModelExecutor::Execute(StepPlan plan, LayerDone layer_done, Done done) {
  LH_CHECK(under_way_ == nullptr, absl::StrCat("step ", plan.step, " begins while another runs"));
  const ModelConfig& config = ranks_[0].decoder->config();
  const int width = static_cast<int>(ranks_.size());
  under_way_ = std::make_shared<Step>();
  Step& step = *under_way_;
  step.plan = std::move(plan);
  step.result.step = step.plan.step;
  for (const StepSequence& sequence : step.plan.sequences) {
    StepResult::Sequence& out = step.result.sequences.emplace_back();
    out.id = sequence.id;
    out.status = CheckTokens(sequence, config.vocab);
    if (out.status.ok()) step.valid.push_back(&sequence);
  }
  step.storing = std::make_unique<std::atomic<int>[]>(config.layers);
  for (int layer = 0; layer < config.layers; ++layer) step.storing[layer] = width;
  step.running = width;
  step.layer_done = std::move(layer_done);
  step.done = std::move(done);
  for (int rank = 0; rank < width; ++rank) {
    device_threads_[rank]->Post(
        [this, step = under_way_, rank] { RunOnDevice(step, ranks_[rank]); });
  }
}

void ModelExecutor::RunOnDevice(const std::shared_ptr<Step>& step, const ModelRank& rank) {
  const int64_t start_us = owner_.NowUs();
  if (!step->valid.empty()) RunValid(step, rank);
  if (&rank == &ranks_[0]) step->result.compute_us = owner_.NowUs() - start_us;
  if (--step->running > 0) return;
  owner_.Post([this, step] {
    if (step->dropped) return;
    under_way_ = nullptr;
    step->done(std::move(step->result));
  });
}

void ModelExecutor::RunValid(const std::shared_ptr<Step>& step, const ModelRank& rank) {
  const Batch batch = MakeBatch(step->valid);
  std::vector<SampleRow> rows = MakeSampleRows(step->valid);

  const auto announce = [&](int layer) {
    if (step->layer_done == nullptr || --step->storing[layer] > 0) return;
    owner_.Post([step, layer] {
      if (!step->dropped) step->layer_done(layer);
    });
  };
  // Layers are announced as soon as they are seen to be stored; on a device that runs behind its
  // queue, those that were not yet are waited for after the whole step has been queued.
  Backend& backend = *rank.backend;
  std::vector<DeviceEvent> stored;
  int announced = 0;
  const auto layer_stored = [&](int layer, DeviceEvent event) {
    stored.push_back(event);
    while (announced <= layer && backend.IsDone(stored[announced])) announce(announced++);
  };
  absl::StatusOr<std::vector<absl::StatusOr<SampledToken>>> sampled =
      rank.decoder->Run(batch, rank.pool, absl::MakeSpan(rows), layer_stored);
  for (; announced < static_cast<int>(stored.size()); ++announced) {
    backend.Wait(stored[announced]);
    announce(announced);
  }
  backend.Wait(backend.Record());
  if (&rank == &ranks_[0]) TakeResults(*step, std::move(sampled));
}

void ModelExecutor::TakeResults(Step& step,
                                absl::StatusOr<std::vector<absl::StatusOr<SampledToken>>> sampled) {
  size_t next_sampled = 0;
  size_t next = 0;
  for (StepResult::Sequence& out : step.result.sequences) {
    if (!out.status.ok()) continue;
    const StepSequence& sequence = *step.valid[next++];
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
