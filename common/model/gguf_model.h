// The meaning of a GGUF file: configuration, weights and tokenizer of a Llama-, Qwen2- or
// Qwen3-shaped model. Called by LoadModelFile; any thread.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/gguf.h"
#include "common/model/model_file.h"

namespace longhaul {

// `bytes` are the whole file, kept alive by `storage`; `where` names it in errors. config.name and
// the digest are left to LoadModelFile.
absl::StatusOr<ModelFile> ModelFromGguf(absl::Span<const std::byte> bytes,
                                        std::shared_ptr<const void> storage,
                                        const std::string& where);

// The tokenizer.ggml.* keys. The ids that end a generation go to `eos_tokens`: eos, eot and eom of
// the file and the control tokens that chat formats end a turn with.
absl::StatusOr<TokenizerData> TokenizerFromGguf(const GgufFile& file,
                                                std::vector<int32_t>* eos_tokens);

}  // namespace longhaul
