#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/sample_kernel.h"
#include "kernels/cuda/sample_row.cuh"

namespace longhaul {
namespace sampling {
namespace {

// The first integer sum that is more than `uniform` of the whole, at most all of it.
__device__ Mass DrawTarget(double uniform, Mass total) {
  const Mass target = static_cast<Mass>(uniform * static_cast<double>(total)) + 1;
  return target < total ? target : total;
}

// The draw among all tokens that min_p leaves, in order of id.
__device__ int DrawFromAll(Row& row, const SampleTask& task, Weights weights) {
  const Mass total = row.Total(weights, task.min_p);
  return row.FindInOrder(DrawTarget(task.uniform, total), [&](float logit) {
    const float weight = weights.Of(logit);
    return weight >= task.min_p ? Weights::MassOf(weight) : Mass{0};
  });
}

// The draw among the most likely tokens that top_k, top_p and min_p leave, in order of rank: a
// prefix of the ranking, which cuts make shorter and whose mass alone the draw needs.
__device__ int DrawFromTop(Row& row, const SampleTask& task, Weights weights) {
  row.MakeFirstHistogram(weights);
  Mass total = row.Total(weights, 0.0f);
  float last_weight = 0.0f;  // of the last token left
  if (task.top_k > 0 && task.top_k < row.vocab()) {
    const auto cut = row.Cross<true>(task.top_k);
    total = cut.mass_above + (task.top_k - cut.count_above) * cut.mass_each;
    last_weight = weights.Of(LogitOf(cut.key));
  }
  if (task.top_p < 1.0f) {
    const Mass wanted =
        static_cast<Mass>(ceil(static_cast<double>(task.top_p) * static_cast<double>(total)));
    const Mass target = wanted < 1 ? 1 : wanted < total ? wanted : total;
    const auto cut = row.Cross<false>(target);
    const Mass ties = (target - cut.mass_above + cut.mass_each - 1) / cut.mass_each;
    total = cut.mass_above + ties * cut.mass_each;
    last_weight = weights.Of(LogitOf(cut.key));
  }
  if (last_weight < task.min_p) total = row.Total(weights, task.min_p);
  const Mass target = DrawTarget(task.uniform, total);
  const auto drawn = row.Cross<false>(target);
  const Mass tie = (target - drawn.mass_above + drawn.mass_each - 1) / drawn.mass_each;
  return row.FindInOrder(tie, [&](float logit) { return Mass{KeyOf(logit) == drawn.key}; });
}

__device__ void Edit(Row& row, float* logits, const SampleTask& task, SampleEdit* edits) {
  for (int i = row.rank() * kThreads + threadIdx.x; i < task.edits; i += kBlocks * kThreads) {
    SampleEdit& edit = edits[i];
    float logit = logits[edit.token];
    edit.raw = logit;
    if (edit.in_history) {
      logit = logit > 0.0f ? __fdiv_rn(logit, task.repetition_penalty)
                           : __fmul_rn(logit, task.repetition_penalty);
    }
    if (edit.output_uses > 0) {
      logit = __fsub_rn(
          logit, __fadd_rn(task.presence_penalty, __fmul_rn(task.frequency_penalty,
                                                            static_cast<float>(edit.output_uses))));
    }
    logit = __fadd_rn(logit, edit.bias);
    logits[edit.token] = edit.banned ? __int_as_float(0xff800000) : logit;
  }
  row.Sync();
}

// The chosen token, known to the block that is to write it down; -1 in the others.
__device__ int Choose(Row& row, const SampleTask& task, Mass best) {
  if (task.temperature == 0.0f) return row.rank() == 0 ? Row::TokenOf(best) : -1;
  const Weights weights = {Row::LogitOfRanked(best), task.temperature};
  const bool cut = task.top_p < 1.0f || task.top_k > 0;
  return cut ? DrawFromTop(row, task, weights) : DrawFromAll(row, task, weights);
}

// Writes the most likely tokens of the raw distribution; returns the log of its total weight.
__device__ double RawDistribution(Row& row, const SampleTask& task, Mass best,
                                  SampleOutcome& outcome) {
  const Weights raw = {Row::LogitOfRanked(best), 1.0f};
  const double log_total = log(static_cast<double>(row.Total(raw, 0.0f)) / kMassUnit) + raw.best;
  const int count = min(row.vocab(), task.top_logprobs);
  for (int i = 0; i < count; ++i) {
    if (row.rank() == 0 && threadIdx.x == 0) {
      outcome.top_tokens[i] = Row::TokenOf(best);
      outcome.top_logprobs[i] = static_cast<float>(Row::LogitOfRanked(best) - log_total);
      outcome.top_count = i + 1;
    }
    best = row.Next(best);
  }
  return log_total;
}

__device__ void SampleInto(SampleOutcome& outcome, Row& row, float* logits, const SampleTask& task,
                           SampleEdit* edits) {
  const bool first = row.rank() == 0 && threadIdx.x == 0;
  if (first) outcome = SampleOutcome();
  Mass best = row.Best();
  if (best == Row::kNotANumber) {
    if (first) outcome.fault = SampleFault::kNotANumber;
    return;
  }
  const double log_total = task.top_logprobs >= 0 ? RawDistribution(row, task, best, outcome) : 0.0;
  if (task.edits > 0) {
    Edit(row, logits, task, edits);
    best = row.Next(Row::kNotANumber);
  }
  if (Row::LogitOfRanked(best) == __int_as_float(0xff800000)) {
    if (first) outcome.fault = SampleFault::kNothingLeft;
    return;
  }
  const int token = Choose(row, task, best);
  if (token < 0) return;
  if (threadIdx.x == 0) {
    outcome.token = token;
    outcome.logprob = static_cast<float>(logits[token] - log_total);
  }
  if (task.top_logprobs < 0) return;
  __syncthreads();
  for (int i = threadIdx.x; i < task.edits; i += kThreads) {
    if (edits[i].token == token) outcome.logprob = static_cast<float>(edits[i].raw - log_total);
  }
}

__global__ void __cluster_dims__(kBlocks) __launch_bounds__(kThreads)
    Sample(float* all_logits, int64_t vocab, const SampleTask* tasks, SampleEdit* all_edits,
           SampleOutcome* outcomes) {
  __shared__ Shared shared;
  const int index = blockIdx.x / kBlocks;
  const SampleTask task = tasks[index];
  float* logits = all_logits + task.row * vocab;
  Row row(logits, static_cast<int>(vocab), shared);
  SampleInto(outcomes[index], row, logits, task, all_edits + task.first_edit);
  row.Sync();  // until then others may read this block's shared memory
}

}  // namespace
}  // namespace sampling

void LaunchSample(float* logits, int64_t vocab, const SampleTask* tasks, SampleEdit* edits,
                  int count, SampleOutcome* outcomes, cudaStream_t stream) {
  sampling::Sample<<<count * sampling::kBlocks, sampling::kThreads, 0, stream>>>(
      logits, vocab, tasks, edits, outcomes);
  CudaCheckLaunch("Sample");
}

}  // namespace longhaul
