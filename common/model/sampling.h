// What a client may ask of the sampler, and what the sampler gives back.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace longhaul {

struct SamplingParams {
  float temperature = 1.0f;         // 0: greedy, the lowest id among equals
  float top_p = 1.0f;               // (0, 1]
  int32_t top_k = 0;                // 0: all
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // > 0; over prompt and output
  float presence_penalty = 0.0f;    // over output, as is frequency_penalty
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>>
      logit_bias;             // (token, added to its logit); may be -inf to ban
  int32_t top_logprobs = -1;  // -1: no log probabilities; 0: of the chosen token only
};

// Log probabilities are of the distribution before temperature, penalties and cuts (what OpenAI
// clients expect).
struct SampledToken {
  int32_t token = -1;
  float logprob = 0.0f;                                 // set when top_logprobs >= 0
  std::vector<std::pair<int32_t, float>> top_logprobs;  // descending
};

}  // namespace longhaul
