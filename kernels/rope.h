// The rotation angles of rotary position embeddings, from a model's fields. Any thread.
// Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021; the Llama 3
// scaling as Meta's reference code (llama-models, apply_scaling) defines it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/model/config.h"

namespace longhaul {

// Radians per position of each rotated pair, [head_dim / 2], with the model's scaling applied.
std::vector<double> RopeFrequencies(const ModelConfig& config);

// cosines, sines [head_dim / 2] of `position`. Float64 inside, so that far positions keep their
// angles.
void RopeAngles(absl::Span<const double> frequencies, int64_t position, float* cosines,
                float* sines);

}  // namespace longhaul
