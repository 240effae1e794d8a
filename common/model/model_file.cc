#include "common/model/model_file.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "common/base/mapped_file.h"
#include "common/base/status.h"
#include "common/model/gguf_model.h"
#include "common/model/hugging_face.h"
#include "common/model/model_digest.h"

namespace longhaul {
namespace {

// "SmolLM2.Q4_1" for "/models/SmolLM2.Q4_1.gguf", "Qwen3-0.6B" for "/models/Qwen3-0.6B/".
std::string NameOf(absl::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash != absl::string_view::npos) path.remove_prefix(slash + 1);
  constexpr absl::string_view kSuffix = ".gguf";
  if (path.size() > kSuffix.size() && path.substr(path.size() - kSuffix.size()) == kSuffix) {
    path.remove_suffix(kSuffix.size());
  }
  return std::string(path);
}

absl::StatusOr<ModelFile> ModelFromGgufFile(const std::string& path) {
  LH_ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  const absl::Span<const std::byte> bytes = file->bytes();
  return ModelFromGguf(bytes, std::move(file), path);
}

// Training pads embedding and head to a round number of rows. Those that no token names are left
// out: nobody can read such an id, so none may be sampled or accepted, and what is not computed has
// no probability either.
void LeaveOutPadding(ModelFile& model) {
  const auto tokens = static_cast<int64_t>(model.tokenizer.tokens.size());
  model.config.vocab = model.weights.embedding.rows = model.weights.head.rows = tokens;
  std::erase_if(model.config.eos_tokens, [&](int32_t id) { return id >= tokens; });
}

}  // namespace

absl::StatusOr<ModelFile> LoadModelFile(const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError(
        "--model is missing: name a GGUF file or a Hugging Face folder");
  }
  std::error_code ignored;  // what is wrong with a path, opening it will say
  LH_ASSIGN_OR_RETURN(ModelFile model, std::filesystem::is_directory(path, ignored)
                                           ? ModelFromHuggingFace(path)
                                           : ModelFromGgufFile(path));
  LeaveOutPadding(model);
  model.config.name = NameOf(path);
  model.digest = DigestOf(model);
  return model;
}

}  // namespace longhaul
