// The parts of a Hugging Face model folder: config.json, *.safetensors, tokenizer.json and what
// lies beside them. Called by LoadModelFile; any thread. Whatever would change the arithmetic or
// the tokens and is not implemented is refused, never ignored.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/config.h"
#include "common/model/model_file.h"
#include "common/model/tokenizer_data.h"

namespace longhaul {

// The whole folder; config.name and the digest are left to LoadModelFile. The weights stay mapped.
absl::StatusOr<ModelFile> ModelFromHuggingFace(const std::string& folder);

// config.json, and eos_tokens also from generation_config.json. vocab is what the file says;
// qkv_bias and qk_norm are left to the weights.
absl::StatusOr<ModelConfig> ConfigFromHuggingFace(const std::string& folder);

// The weights that `config` needs, in one file or in shards. Sets config->qkv_bias and ->qk_norm.
absl::StatusOr<ModelWeights> WeightsFromHuggingFace(const std::string& folder, ModelConfig* config);

// tokenizer.json, tokenizer_config.json and chat_template.jinja. Ids must be below `vocab`.
absl::StatusOr<TokenizerData> TokenizerFromHuggingFace(const std::string& folder, int64_t vocab);

// Bounds of the files that are read whole.
inline constexpr int64_t kConfigBytesMax = int64_t{16} << 20;
inline constexpr int64_t kTokenizerBytesMax = int64_t{64} << 20;

}  // namespace longhaul
