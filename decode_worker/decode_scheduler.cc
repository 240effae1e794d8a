#include "decode_worker/decode_scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace longhaul {
namespace {

PrefillSchedulerOptions WithBlocksOf(PrefillSchedulerOptions options, const BlockManager& blocks) {
  options.block_tokens = blocks.block_tokens();
  return options;
}

}  // namespace

DecodeScheduler::DecodeScheduler(DecodeSchedulerOptions options, BlockManager* blocks,
                                 const CostModel* cost)
    : options_(options),
      blocks_(blocks),
      cost_(cost),
      prefill_(WithBlocksOf(options.prefill, *blocks), cost) {}

absl::Status DecodeScheduler::Add(SequenceId id, DecodeRequest request) {
  const int64_t given = static_cast<int64_t>(request.tokens.size());
  const int64_t end = request.prompt_tokens + request.output_tokens_max;
  if (request.prompt_tokens < 1 || given < request.prompt_tokens || given >= end) {
    return absl::InvalidArgumentError(
        absl::StrCat("a request of ", given, " tokens, ", request.prompt_tokens,
                     " of them prompt, with at most ", request.output_tokens_max,
                     " tokens of output leaves nothing to generate"));
  }
  if (end > options_.context_tokens_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.prompt_tokens, " prompt tokens and ", request.output_tokens_max,
                     " output tokens are more than the ", options_.context_tokens_max,
                     " of the model's context"));
  }
  if (blocks_->BlocksFor(end) > blocks_->total()) {
    return absl::InvalidArgumentError(absl::StrCat(end, " tokens need ", blocks_->BlocksFor(end),
                                                   " KV blocks, this worker has ", blocks_->total(),
                                                   "; ask for fewer tokens or raise --kv_bytes"));
  }
  if (sequences() >= options_.sequences_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(sequences(), " requests are here already, the limit"));
  }
  Sequence sequence;
  sequence.tokens = std::move(request.tokens);
  sequence.request = std::move(request);
  sequences_.emplace(id, std::move(sequence));
  waiting_.push_back(id);
  return absl::OkStatus();
}

std::optional<DecodeScheduler::Admission> DecodeScheduler::AdmitNext() {
  if (waiting_.empty()) return std::nullopt;
  const int64_t active = sequences() - waiting();
  if (active >= options_.batch_sequences_max) return std::nullopt;
  const SequenceId id = waiting_.front();
  Sequence& sequence = sequences_.at(id);
  std::vector<BlockId> matched =
      blocks_->Match(sequence.tokens, sequence.fill_end(), sequence.request.cache_salt);
  const int64_t missing =
      blocks_->BlocksFor(sequence.fill_end()) - static_cast<int64_t>(matched.size());
  // Beside others one block more, so that the first step need not push somebody out.
  if (missing + (active > 0 ? 1 : 0) > unreserved()) {
    blocks_->Release(matched);
    return std::nullopt;
  }
  waiting_.pop_front();
  sequence.state = State::kFilling;
  sequence.published = static_cast<int64_t>(matched.size());
  sequence.kv_tokens = sequence.published * blocks_->block_tokens();
  sequence.blocks = std::move(matched);
  sequence.reserved = missing;
  reserved_ += missing;
  const Admission admission{id, sequence.kv_tokens, sequence.fill_end()};
  if (admission.cached_tokens == admission.fill_end) sequence.state = State::kRunning;
  return admission;
}

absl::Span<const BlockId> DecodeScheduler::GrowFill(SequenceId id, int64_t position_end) {
  Sequence& sequence = sequences_.at(id);
  const int64_t more =
      blocks_->BlocksFor(position_end) - static_cast<int64_t>(sequence.blocks.size());
  if (more > 0) {
    LH_CHECK(
        sequence.state == State::kFilling && more <= sequence.reserved &&
            blocks_->Allocate(more, &sequence.blocks),
        absl::StrCat("a fill grows by ", more, " blocks, ", sequence.reserved, " are reserved"));
    sequence.reserved -= more;
    reserved_ -= more;
  }
  return sequence.blocks;
}

void DecodeScheduler::Filled(SequenceId id, int64_t position_end) {
  Sequence& sequence = sequences_.at(id);
  sequence.kv_tokens = std::max(sequence.kv_tokens, position_end);
  Publish(sequence);
  if (sequence.kv_tokens == sequence.fill_end()) sequence.state = State::kRunning;
}

void DecodeScheduler::FillLocally(SequenceId id, int64_t now_us) {
  const Sequence& sequence = sequences_.at(id);
  prefill_.Add(id, sequence.kv_tokens, sequence.fill_end(), now_us);
}

// Only KV that was computed as prefill rows is named: a later prompt that finds it gets the very
// bits that it would have computed.
void DecodeScheduler::Publish(Sequence& sequence) {
  const int64_t tokens = std::min(sequence.kv_tokens, sequence.fill_end());
  sequence.published =
      blocks_->Publish(absl::MakeConstSpan(sequence.tokens).first(tokens),
                       absl::MakeConstSpan(sequence.blocks).first(blocks_->BlocksFor(tokens)),
                       sequence.published, sequence.request.cache_salt);
}

void DecodeScheduler::Release(Sequence& sequence) {
  blocks_->Release(sequence.blocks);
  sequence.blocks.clear();
  reserved_ -= sequence.reserved;
  sequence.reserved = 0;
}

void DecodeScheduler::StepBack(SequenceId id, Sequence& sequence) {
  Release(sequence);
  sequence.state = State::kWaiting;
  sequence.kv_tokens = 0;
  sequence.published = 0;
  waiting_.insert(absl::c_lower_bound(waiting_, id), id);
  ++preemptions_;
}

// True when the sequence has the blocks that the KV of its next rows goes to. May make others, or
// itself, step back.
bool DecodeScheduler::GrowRunning(SequenceId id, Sequence& sequence) {
  const int64_t held = static_cast<int64_t>(sequence.blocks.size());
  const int64_t more = blocks_->BlocksFor(sequence.kv_tokens + RunningRows(sequence)) - held;
  while (unreserved() < more) {
    auto last = sequences_.rbegin();
    while (last->second.state != State::kRunning) ++last;  // ends at `id` at the latest
    const SequenceId victim = last->first;
    StepBack(victim, last->second);
    if (victim == id) return false;
  }
  LH_CHECK(more <= 0 || blocks_->Allocate(more, &sequence.blocks),
           "unreserved blocks are available");
  return true;
}

// One, but for a sequence whose outputs were emitted before: they are run again.
int64_t DecodeScheduler::RunningRows(const Sequence& sequence) const {
  const int64_t behind = static_cast<int64_t>(sequence.tokens.size()) - sequence.kv_tokens;
  return std::min(behind, options_.replay_rows_max);
}

StepSequence DecodeScheduler::RunningStep(SequenceId id, const Sequence& sequence) const {
  const int64_t end = sequence.kv_tokens + RunningRows(sequence);
  StepSequence step;
  step.id = id;
  step.tokens.assign(sequence.tokens.begin() + sequence.kv_tokens, sequence.tokens.begin() + end);
  step.position = sequence.kv_tokens;
  step.blocks = sequence.blocks;
  step.replay = step.tokens.size() > 1 || end < static_cast<int64_t>(sequence.tokens.size());
  step.sample = end == static_cast<int64_t>(sequence.tokens.size());
  step.sampling = sequence.request.sampling;
  if (!step.sample) return step;
  const SamplingParams& sampling = *step.sampling;
  if (sampling.repetition_penalty != 1.0f || sampling.presence_penalty != 0.0f ||
      sampling.frequency_penalty != 0.0f) {
    step.history = sequence.tokens;
    step.history_prompt_tokens = sequence.request.prompt_tokens;
  }
  if (sequence.outputs() < sequence.request.output_tokens_min) {
    step.banned = sequence.request.stop_tokens;
  }
  return step;
}

double DecodeScheduler::RoomUs(int64_t rows, int64_t context_tokens) const {
  return std::max(options_.step_target_us - cost_->DecodeStepUs(rows, context_tokens), 0.0);
}

double DecodeScheduler::prompt_share() const {
  int64_t rows = 0, context_tokens = 0;
  for (const auto& [id, sequence] : sequences_) {
    if (sequence.state != State::kRunning) continue;
    ++rows;
    context_tokens += sequence.kv_tokens;
  }
  return rows == 0 ? 1.0 : RoomUs(rows, context_tokens) / options_.step_target_us;
}

StepSequence DecodeScheduler::ChunkStep(const PrefillScheduler::Chunk& chunk) {
  const Sequence& sequence = sequences_.at(chunk.id);
  const int64_t end = chunk.position + chunk.tokens;
  GrowFill(chunk.id, end);
  StepSequence step;
  step.id = chunk.id;
  step.position = chunk.position;
  step.tokens.assign(sequence.tokens.begin() + chunk.position, sequence.tokens.begin() + end);
  step.blocks = sequence.blocks;
  return step;
}

StepPlan DecodeScheduler::Plan(int64_t now_us) {
  StepPlan plan;
  // Oldest first: those that step back came later and have no row yet.
  for (auto& [id, sequence] : sequences_) {
    if (sequence.state != State::kRunning || sequence.removed) continue;
    if (GrowRunning(id, sequence)) plan.sequences.push_back(RunningStep(id, sequence));
  }
  int64_t context_tokens = 0;
  for (const StepSequence& running : plan.sequences) context_tokens += running.position;
  const auto rows = static_cast<int64_t>(plan.sequences.size());
  // Nobody waits for a step of a chunk alone: it is as long as on a prefill worker.
  const auto chunk =
      rows == 0 ? prefill_.Next(now_us) : prefill_.Next(now_us, RoomUs(rows, context_tokens));
  if (chunk.has_value()) plan.sequences.push_back(ChunkStep(*chunk));
  if (plan.sequences.empty()) return plan;
  plan.step = next_step_++;
  for (const StepSequence& step : plan.sequences) {
    Sequence& sequence = sequences_.at(step.id);
    sequence.in_step = true;
    sequence.step_tokens = static_cast<int64_t>(step.tokens.size());
  }
  return plan;
}

std::vector<DecodeScheduler::Output> DecodeScheduler::Commit(const StepResult& result) {
  std::vector<Output> outputs;
  for (const StepResult::Sequence& row : result.sequences) {
    Sequence& sequence = sequences_.at(row.id);
    sequence.in_step = false;
    if (sequence.removed) {
      Release(sequence);
      sequences_.erase(row.id);
      continue;
    }
    if (!row.status.ok()) {
      outputs.push_back({.id = row.id, .token = {}, .finished = true, .status = row.status});
      prefill_.Remove(row.id);
      Release(sequence);
      sequences_.erase(row.id);
      continue;
    }
    if (sequence.state == State::kFilling) {
      prefill_.Advance({row.id, sequence.kv_tokens, sequence.step_tokens});
      Filled(row.id, sequence.kv_tokens + sequence.step_tokens);
      continue;
    }
    sequence.kv_tokens += sequence.step_tokens;
    if (sequence.kv_tokens < static_cast<int64_t>(sequence.tokens.size())) continue;
    sequence.tokens.push_back(row.sampled.token);
    Output output{.id = row.id, .token = row.sampled, .status = {}};
    output.stopped = absl::c_linear_search(sequence.request.stop_tokens, row.sampled.token);
    output.finished = output.stopped || sequence.outputs() >= sequence.request.output_tokens_max;
    if (output.finished) {
      Release(sequence);
      sequences_.erase(row.id);
    }
    outputs.push_back(std::move(output));
  }
  return outputs;
}

void DecodeScheduler::Remove(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  std::erase(waiting_, id);
  prefill_.Remove(id);
  if (found->second.in_step) {
    found->second.removed = true;
    return;
  }
  Release(found->second);
  sequences_.erase(found);
}

std::vector<BlockId> DecodeScheduler::RemoveKeepingBlocks(SequenceId id) {
  std::vector<BlockId> kept = std::move(sequences_.at(id).blocks);
  sequences_.at(id).blocks.clear();
  Remove(id);
  return kept;
}

int64_t DecodeScheduler::running() const {
  return absl::c_count_if(sequences_,
                          [](const auto& entry) { return entry.second.state == State::kRunning; });
}

}  // namespace longhaul
