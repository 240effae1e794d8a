// ModelFile: everything that is read from a model on disk, whatever its format.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/base/hash.h"
#include "common/model/config.h"
#include "common/model/tokenizer_data.h"
#include "common/model/weights.h"

namespace longhaul {

struct ModelFile {
  ModelConfig config;
  ModelWeights weights;
  TokenizerData tokenizer;
  // Names the weights, the shapes and the tokenizer: two workers whose digests differ never
  // exchange KV. Hashes every tensor's name, type, shape and a sample of its bytes, so that it
  // takes milliseconds for any size.
  Hash128 digest;
};

// Reads a GGUF v3 file or a Hugging Face folder (config.json, *.safetensors, tokenizer.json). The
// weights stay mapped. The vocabulary is the tokenizer's: rows of embedding and head beyond it are
// padding, and left out. Errors name the file, the field, the numbers and what would be valid;
// hostile bytes give an error, never a crash.
absl::StatusOr<ModelFile> LoadModelFile(const std::string& path);

}  // namespace longhaul
