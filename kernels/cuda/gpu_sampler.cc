#include "kernels/cuda/gpu_sampler.h"

#include <algorithm>
#include <cstring>

#include "absl/container/flat_hash_map.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "kernels/sampler.h"

namespace longhaul {
namespace {

constexpr int64_t kStagingBytesMin = int64_t{64} << 10;

bool FitsKernel(const SampleRow& row) { return row.params->top_logprobs <= kTopLogprobsMax; }

SampledToken TokenOf(const SampleOutcome& outcome, const SamplingParams& params) {
  SampledToken sampled;
  sampled.token = outcome.token;
  if (params.top_logprobs < 0) return sampled;
  sampled.logprob = outcome.logprob;
  for (int i = 0; i < outcome.top_count; ++i) {
    sampled.top_logprobs.emplace_back(outcome.top_tokens[i], outcome.top_logprobs[i]);
  }
  return sampled;
}

}  // namespace

std::vector<absl::StatusOr<SampledToken>> GpuSampler::Sample(float* logits, int64_t vocab,
                                                             absl::Span<const SampleRow> rows) {
  std::vector<absl::StatusOr<SampledToken>> sampled(rows.size());
  std::vector<size_t> asked;  // whose task is the i-th
  tasks_.clear();
  edits_.clear();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (absl::Status status = CheckSampleRow(rows[i], vocab); !status.ok()) {
      sampled[i] = status;
    } else if (FitsKernel(rows[i])) {
      asked.push_back(i);
      AddTask(rows[i]);
    } else {
      sampled[i] = SampleOnHost(logits, vocab, rows[i]);
    }
  }
  if (asked.empty()) return sampled;
  const absl::Status ran = RunTasks(logits, vocab);
  const auto* outcomes = reinterpret_cast<const SampleOutcome*>(staging_.data());
  for (size_t i = 0; i < asked.size(); ++i) {
    absl::StatusOr<SampledToken>& out = sampled[asked[i]];
    if (!ran.ok()) {
      out = ran;
    } else if (outcomes[i].fault == SampleFault::kNotANumber) {
      out = NotANumberError();
    } else if (outcomes[i].fault == SampleFault::kNothingLeft) {
      out = NothingLeftError();
    } else {
      out = TokenOf(outcomes[i], *rows[asked[i]].params);
    }
  }
  return sampled;
}

void GpuSampler::AddTask(const SampleRow& row) {
  const SamplingParams& params = *row.params;
  SampleTask& task = tasks_.emplace_back();
  task.row = row.row;
  task.uniform = UniformAt(params.seed, static_cast<uint64_t>(row.output_position));
  task.temperature = params.temperature;
  task.top_p = params.top_p;
  task.min_p = params.min_p;
  task.top_k = params.top_k;
  task.repetition_penalty = params.repetition_penalty;
  task.presence_penalty = params.presence_penalty;
  task.frequency_penalty = params.frequency_penalty;
  task.top_logprobs = params.top_logprobs;
  task.first_edit = static_cast<int32_t>(edits_.size());
  absl::flat_hash_map<int32_t, size_t> by_token;
  const auto edit = [&](int32_t token) -> SampleEdit& {
    const auto [found, added] = by_token.try_emplace(token, edits_.size());
    if (added) edits_.emplace_back().token = token;
    return edits_[found->second];
  };
  for (size_t i = 0; i < row.history.size(); ++i) {
    SampleEdit& use = edit(row.history[i]);
    use.in_history = true;
    if (static_cast<int64_t>(i) >= row.history_prompt_tokens) ++use.output_uses;
  }
  for (const auto& [token, bias] : params.logit_bias) edit(token).bias += bias;
  for (const int32_t token : row.banned) edit(token).banned = true;
  task.edits = static_cast<int32_t>(edits_.size()) - task.first_edit;
}

absl::Status GpuSampler::RunTasks(float* logits, int64_t vocab) {
  const auto bytes_of = [](const auto& values) {
    return static_cast<int64_t>(values.size() * sizeof(values[0]));
  };
  const auto outcome_bytes =
      static_cast<int64_t>((tasks_.size() * sizeof(SampleOutcome) + 15) / 16 * 16);
  const int64_t edits_at = outcome_bytes + (bytes_of(tasks_) + 15) / 16 * 16;
  const int64_t bytes = edits_at + bytes_of(edits_);
  if (memory_ == nullptr || memory_->bytes() < bytes) {
    const int64_t next = std::max(2 * bytes, kStagingBytesMin);
    memory_ = nullptr;
    LH_ASSIGN_OR_RETURN(staging_, CudaPinnedBuffer::Allocate(next));
    LH_ASSIGN_OR_RETURN(memory_, device_.Allocate(next));
  }
  std::memcpy(staging_.data() + outcome_bytes, tasks_.data(), bytes_of(tasks_));
  if (!edits_.empty()) std::memcpy(staging_.data() + edits_at, edits_.data(), bytes_of(edits_));
  std::byte* there = memory_->data();
  device_.Copy(there + outcome_bytes, staging_.data() + outcome_bytes, bytes - outcome_bytes);
  LaunchSample(logits, vocab, reinterpret_cast<const SampleTask*>(there + outcome_bytes),
               reinterpret_cast<SampleEdit*>(there + edits_at), static_cast<int>(tasks_.size()),
               reinterpret_cast<SampleOutcome*>(there), device_.stream());
  device_.Copy(staging_.data(), there, outcome_bytes);
  device_.Wait(device_.Record());
  return absl::OkStatus();
}

absl::StatusOr<SampledToken> GpuSampler::SampleOnHost(const float* logits, int64_t vocab,
                                                      const SampleRow& row) {
  std::vector<float> host(vocab);
  device_.Copy(host.data(), logits + row.row * vocab, vocab * static_cast<int64_t>(sizeof(float)));
  device_.Wait(device_.Record());
  return SampleToken(host, row);
}

}  // namespace longhaul
