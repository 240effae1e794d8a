#include <cstring>
#include <memory>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/mapped_file.h"
#include "common/base/status.h"
#include "common/model/hugging_face.h"
#include "common/model/json_fields.h"
#include "common/model/model_checks.h"
#include "common/model/safetensors.h"

namespace longhaul {
namespace {

constexpr absl::string_view kIndexFile = "model.safetensors.index.json";
constexpr absl::string_view kSingleFile = "model.safetensors";
constexpr size_t kShardsMax = 4096;

// The shards that the index names. Their names are untrusted: they stay within the folder.
absl::StatusOr<std::set<std::string>> ReadIndex(const boost::json::value& root,
                                                const std::string& path) {
  LH_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Make(root, path));
  LH_ASSIGN_OR_RETURN(const JsonFields map, fields.Object("weight_map"));
  std::set<std::string> shards;
  for (const auto& item : map.object()) {
    const boost::json::string* shard = item.value().if_string();
    if (shard == nullptr || !absl::EndsWith(TextOf(*shard), ".safetensors") ||
        absl::StrContains(TextOf(*shard), '/') ||
        absl::StrContains(TextOf(*shard), absl::string_view("\0", 1))) {
      return map.Error("an entry is not the name of a .safetensors file in this folder");
    }
    shards.insert(std::string(TextOf(*shard)));
  }
  if (shards.empty() || shards.size() > kShardsMax) {
    return map.Error(
        absl::StrCat("names ", shards.size(), " files; 1 to ", kShardsMax, " are valid"));
  }
  return shards;
}

class WeightsReader {
 public:
  WeightsReader(const std::string& folder, ModelConfig* config)
      : folder_(folder), config_(*config) {}

  absl::StatusOr<ModelWeights> Run() {
    LH_RETURN_IF_ERROR(OpenFiles());
    LH_ASSIGN_OR_RETURN(weights_.embedding, Take("model.embed_tokens.weight"));
    LH_ASSIGN_OR_RETURN(weights_.final_norm, Take("model.norm.weight"));
    LH_ASSIGN_OR_RETURN(const WeightView head, Take("lm_head.weight"));
    if (!config_.tied_head && !head.present()) {
      return Error(
          "lm_head.weight is missing; a model whose head is its embedding has "
          "tie_word_embeddings true in config.json");
    }
    weights_.head = config_.tied_head ? weights_.embedding : head;
    if (static_cast<size_t>(config_.layers) > tensors_.size()) {
      return Error(absl::StrCat("config.json names ", config_.layers, " layers but there are only ",
                                tensors_.size(), " more tensors"));
    }
    weights_.layers.resize(config_.layers);
    for (int i = 0; i < config_.layers; ++i) {
      LH_RETURN_IF_ERROR(ReadLayer(absl::StrCat("model.layers.", i, "."), &weights_.layers[i]));
    }
    config_.qkv_bias = weights_.layers[0].q_bias.present();
    config_.qk_norm = weights_.layers[0].q_norm.present();
    LH_RETURN_IF_ERROR(CheckNothingLeft());
    return std::move(weights_);
  }

 private:
  absl::Status Error(absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat(folder_, ": ", message));
  }

  absl::Status OpenFiles() {
    const std::string index_path = absl::StrCat(folder_, "/", kIndexFile);
    const absl::StatusOr<boost::json::value> index = ParseJsonFile(index_path, kTokenizerBytesMax);
    if (absl::IsNotFound(index.status())) {
      const absl::Status status = OpenFile(std::string(kSingleFile));
      if (!absl::IsNotFound(status)) return status;
      return absl::NotFoundError(absl::StrCat(
          folder_, " holds neither ", kSingleFile, " nor ", kIndexFile,
          "; weights in other formats (pytorch_model.bin) must be saved as safetensors"));
    }
    LH_RETURN_IF_ERROR(index.status());
    LH_ASSIGN_OR_RETURN(const std::set<std::string> shards, ReadIndex(*index, index_path));
    for (const std::string& shard : shards) LH_RETURN_IF_ERROR(OpenFile(shard));
    return absl::OkStatus();
  }

  absl::Status OpenFile(const std::string& name) {
    const std::string path = absl::StrCat(folder_, "/", name);
    LH_ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
    LH_ASSIGN_OR_RETURN(std::vector<SafetensorsTensor> tensors,
                        ParseSafetensors(file->bytes(), path));
    weights_.storage.push_back(std::move(file));
    for (SafetensorsTensor& tensor : tensors) {
      std::string key = tensor.name;
      const auto [at, fresh] = tensors_.try_emplace(std::move(key), std::move(tensor));
      if (!fresh) {
        return Error(absl::StrCat("tensor ", absl::CHexEscape(at->first),
                                  " occurs in two files, again in ", name));
      }
    }
    return absl::OkStatus();
  }

  // Removes the tensor from those left. An absent one gives an absent view.
  absl::StatusOr<WeightView> Take(const std::string& name) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return WeightView{};
    const SafetensorsTensor tensor = std::move(found->second);
    tensors_.erase(found);
    if (tensor.shape.empty() || tensor.shape.size() > 2) {
      return Error(absl::StrCat("tensor ", name, " has ", tensor.shape.size(),
                                " dimensions; a vector has one and a matrix two"));
    }
    WeightView view;
    view.data = Aligned(tensor);
    view.dtype = tensor.dtype;
    view.cols = tensor.shape.back();
    view.rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
    return view;
  }

  // Backends read whole elements. Old files, whose header was not padded, may leave a tensor
  // between them; only such a one is copied.
  const std::byte* Aligned(const SafetensorsTensor& tensor) {
    if (reinterpret_cast<uintptr_t>(tensor.data) % BlockBytes(tensor.dtype) == 0) {
      return tensor.data;
    }
    auto copy = std::make_shared<std::vector<std::byte>>(tensor.data, tensor.data + tensor.bytes);
    const std::byte* data = copy->data();
    weights_.storage.push_back(std::move(copy));
    return data;
  }

  absl::Status ReadLayer(const std::string& prefix, LayerWeights* layer) {
    const std::pair<absl::string_view, WeightView*> parts[] = {
        {"input_layernorm.weight", &layer->attention_norm},
        {"self_attn.q_proj.weight", &layer->q},
        {"self_attn.k_proj.weight", &layer->k},
        {"self_attn.v_proj.weight", &layer->v},
        {"self_attn.q_proj.bias", &layer->q_bias},
        {"self_attn.k_proj.bias", &layer->k_bias},
        {"self_attn.v_proj.bias", &layer->v_bias},
        {"self_attn.q_norm.weight", &layer->q_norm},
        {"self_attn.k_norm.weight", &layer->k_norm},
        {"self_attn.o_proj.weight", &layer->attention_out},
        {"post_attention_layernorm.weight", &layer->ffn_norm},
        {"mlp.gate_proj.weight", &layer->gate},
        {"mlp.up_proj.weight", &layer->up},
        {"mlp.down_proj.weight", &layer->down},
    };
    for (const auto& [name, view] : parts) {
      LH_ASSIGN_OR_RETURN(*view, Take(absl::StrCat(prefix, name)));
    }
    return absl::OkStatus();
  }

  // A tensor that nobody reads is a model that would be computed wrongly. Old Llama files carry the
  // RoPE frequencies that config.json implies.
  absl::Status CheckNothingLeft() const {
    for (const auto& [name, tensor] : tensors_) {
      if (absl::EndsWith(name, ".rotary_emb.inv_freq")) continue;
      return Error(absl::StrCat("tensor ", absl::CHexEscape(name.substr(0, 120)),
                                " has no place in a ", config_.architecture, " model of ",
                                config_.layers, " layers; this variant of it is not supported"));
    }
    return absl::OkStatus();
  }

  const std::string& folder_;
  ModelConfig& config_;
  ModelWeights weights_;
  absl::flat_hash_map<std::string, SafetensorsTensor> tensors_;  // not yet taken
};

}  // namespace

absl::StatusOr<ModelWeights> WeightsFromHuggingFace(const std::string& folder,
                                                    ModelConfig* config) {
  return WeightsReader(folder, config).Run();
}

absl::StatusOr<ModelFile> ModelFromHuggingFace(const std::string& folder) {
  ModelFile model;
  LH_ASSIGN_OR_RETURN(model.config, ConfigFromHuggingFace(folder));
  LH_ASSIGN_OR_RETURN(model.weights, WeightsFromHuggingFace(folder, &model.config));
  // The embedding's rows are backed by bytes, so they bound the tokenizer.
  const int64_t rows = model.weights.embedding.rows;
  LH_ASSIGN_OR_RETURN(model.tokenizer, TokenizerFromHuggingFace(folder, rows));
  std::vector<int32_t>& ends = model.config.eos_tokens;
  ends.push_back(model.tokenizer.eos_token);
  ends = EndTokens(model.tokenizer, ends);
  LH_RETURN_IF_ERROR(CheckModel(model, folder));
  return model;
}

}  // namespace longhaul
