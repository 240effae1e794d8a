// The sampler's kernel: sampler.h's rules over many rows at once, a cluster of thread blocks each.
//
// A token's weight is computed with the very operations of the host's sampler, so both see the same
// float32 weights. Sums of weights are integers in units of 2^-44, exact in any order, so the same
// logits always give the same token; the host sums in float64, one weight after the other. The two
// differ only where a cut or a draw falls within 2^-26 of a token's edge (the largest vocabulary
// times the rounding of a weight), relative to the most likely token's weight.
//
// Cuts are found without a sort: histograms over ever smaller ranges of logits, counting tokens and
// summing weights from the largest down.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace longhaul {

inline constexpr int kTopLogprobsMax = 20;

// A token whose logit is changed first; a token has one at most. In device memory.
struct SampleEdit {
  int32_t token = 0;
  int32_t output_uses = 0;  // in the output so far
  float bias = 0.0f;
  bool in_history = false;  // prompt or output
  bool banned = false;
  float raw = 0.0f;  // the kernel keeps the logit here
};

struct SampleTask {
  int64_t row = 0;
  double uniform = 0.0;  // the draw, in [0, 1)
  float temperature = 1.0f;
  float top_p = 1.0f;
  float min_p = 0.0f;
  int32_t top_k = 0;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  int32_t top_logprobs = -1;  // up to kTopLogprobsMax
  int32_t first_edit = 0;
  int32_t edits = 0;
};

enum class SampleFault : int32_t { kNone, kNotANumber, kNothingLeft };

struct SampleOutcome {
  SampleFault fault = SampleFault::kNone;
  int32_t token = -1;
  float logprob = 0.0f;
  int32_t top_count = 0;
  int32_t top_tokens[kTopLogprobsMax];
  float top_logprobs[kTopLogprobsMax];
};

// outcomes [count] for tasks [count], over logits [rows, vocab], which edits change in place. All
// device memory. Device thread.
void LaunchSample(float* logits, int64_t vocab, const SampleTask* tasks, SampleEdit* edits,
                  int count, SampleOutcome* outcomes, cudaStream_t stream);

}  // namespace longhaul
