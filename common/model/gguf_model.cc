#include "common/model/gguf_model.h"

#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/model/dequantize.h"
#include "common/model/model_checks.h"

namespace longhaul {
namespace {

class GgufModelReader {
 public:
  explicit GgufModelReader(const GgufFile& file) : file_(file) {}

  absl::StatusOr<ModelFile> Run() {
    LH_RETURN_IF_ERROR(CheckWholeModel());
    LH_RETURN_IF_ERROR(ReadConfig());
    LH_RETURN_IF_ERROR(ReadWeights());
    LH_RETURN_IF_ERROR(CheckNothingLeft());
    LH_ASSIGN_OR_RETURN(model_.tokenizer, TokenizerFromGguf(file_, &model_.config.eos_tokens));
    LH_RETURN_IF_ERROR(CheckModel(model_, file_.name()));
    return std::move(model_);
  }

 private:
  ModelConfig& config() { return model_.config; }
  std::string Key(absl::string_view name) const { return absl::StrCat(architecture_, ".", name); }

  absl::Status CheckWholeModel() {
    LH_ASSIGN_OR_RETURN(const int64_t parts, file_.IntegerOr("split.count", 0, 1 << 16, 0));
    if (parts > 1) {
      return file_.Error(absl::StrCat(
          "is one of ", parts, " parts of a split model; join them with gguf-split --merge"));
    }
    LH_ASSIGN_OR_RETURN(const int64_t version,
                        file_.IntegerOr("general.quantization_version", 0, 1 << 16, 2));
    if (version != 2) {
      return file_.Error(absl::StrCat("has quantisation version ", version,
                                      "; only version 2 is read: convert the model again"));
    }
    return absl::OkStatus();
  }

  // A count that may be one number or one a layer; only equal ones are supported.
  absl::StatusOr<int64_t> PerLayer(absl::string_view name, int64_t min, int64_t max,
                                   int64_t absent) const {
    const std::string key = Key(name);
    const GgufValue* value = file_.Find(key);
    if (value == nullptr || value->type != GgufType::kArray) {
      return file_.IntegerOr(key, min, max, absent);
    }
    if (!GgufIsInteger(value->element_type) || value->count == 0) {
      return file_.Error(absl::StrCat("key ", key, " is not an array of integers"));
    }
    const size_t width = GgufScalarBytes(value->element_type);
    int64_t first = 0;
    for (uint64_t i = 0; i < value->count; ++i) {
      int64_t number = 0;
      const bool fits = GgufReadInteger(value->element_type, value->elements + i * width, &number);
      if (!fits || number < min || number > max) {
        return file_.Error(absl::StrCat("key ", key, "[", i, "] is outside ", min, " to ", max));
      }
      if (i == 0) first = number;
      if (number != first) {
        return file_.Error(absl::StrCat("key ", key, " differs between layers (", first, " and ",
                                        number, "), which is not supported"));
      }
    }
    return first;
  }

  absl::Status ReadConfig() {
    LH_ASSIGN_OR_RETURN(architecture_, file_.Text("general.architecture"));
    if (architecture_ != "llama" && architecture_ != "qwen2" && architecture_ != "qwen3") {
      return file_.Error(absl::StrCat("has architecture \"", architecture_,
                                      "\"; supported are llama, qwen2 and qwen3"));
    }
    config().architecture = std::string(architecture_);
    // llama.cpp's converter permutes q and k of Llama files for interleaved pairs.
    config().rope_style = architecture_ == "llama" ? RopeStyle::kInterleaved : RopeStyle::kHalf;
    LH_ASSIGN_OR_RETURN(config().layers, file_.Integer(Key("block_count"), 1, kLayersMax));
    LH_ASSIGN_OR_RETURN(config().hidden, file_.Integer(Key("embedding_length"), 1, kWidthMax));
    LH_ASSIGN_OR_RETURN(config().ffn_hidden, PerLayer("feed_forward_length", 1, kWidthMax, 0));
    LH_ASSIGN_OR_RETURN(config().heads, PerLayer("attention.head_count", 1, kHeadsMax, 0));
    if (config().heads == 0) {
      return file_.Error(absl::StrCat("key ", Key("attention.head_count"), " is missing"));
    }
    LH_ASSIGN_OR_RETURN(config().kv_heads,
                        PerLayer("attention.head_count_kv", 1, kHeadsMax, config().heads));
    LH_ASSIGN_OR_RETURN(config().head_dim,
                        file_.IntegerOr(Key("attention.key_length"), 1, kHeadDimMax,
                                        config().hidden / config().heads));
    LH_ASSIGN_OR_RETURN(const int64_t value_dim, file_.IntegerOr(Key("attention.value_length"), 1,
                                                                 kHeadDimMax, config().head_dim));
    LH_ASSIGN_OR_RETURN(const int64_t rope_dim, file_.IntegerOr(Key("rope.dimension_count"), 1,
                                                                kHeadDimMax, config().head_dim));
    if (value_dim != config().head_dim || rope_dim != config().head_dim) {
      return file_.Error(absl::StrCat("has key heads of ", config().head_dim,
                                      " dimensions, value heads of ", value_dim, " and rotates ",
                                      rope_dim, "; only equal numbers are supported"));
    }
    LH_ASSIGN_OR_RETURN(config().context_tokens_max,
                        file_.Integer(Key("context_length"), 1, kContextTokensMax));
    LH_ASSIGN_OR_RETURN(const double epsilon,
                        file_.Number(Key("attention.layer_norm_rms_epsilon")));
    config().rms_epsilon = static_cast<float>(epsilon);
    return ReadLimits();
  }

  // What changes the arithmetic in a way that is not implemented is refused, never ignored.
  absl::Status ReadLimits() {
    LH_ASSIGN_OR_RETURN(const int64_t experts, file_.IntegerOr(Key("expert_count"), 0, 1 << 16, 0));
    if (experts > 0) {
      return file_.Error(
          absl::StrCat("is a mixture of ", experts, " experts, which is not supported"));
    }
    LH_ASSIGN_OR_RETURN(const int64_t window,
                        file_.IntegerOr(Key("attention.sliding_window"), 0, kContextTokensMax, 0));
    if (window > 0 && window < config().context_tokens_max) {
      return file_.Error(absl::StrCat("attends over a sliding window of ", window,
                                      " tokens within ", config().context_tokens_max,
                                      ", which is not supported"));
    }
    for (const absl::string_view scale :
         {"attention.scale", "logit_scale", "residual_scale", "embedding_scale"}) {
      LH_ASSIGN_OR_RETURN(const double value, file_.NumberOr(Key(scale), 0.0));
      if (value != 0.0 && value != 1.0) {
        return file_.Error(
            absl::StrCat("key ", Key(scale), " is ", value, ", which is not supported"));
      }
    }
    return ReadRope();
  }

  absl::Status ReadRope() {
    LH_ASSIGN_OR_RETURN(config().rope_theta, file_.NumberOr(Key("rope.freq_base"), 10000.0));
    LH_ASSIGN_OR_RETURN(const double legacy, file_.NumberOr(Key("rope.scale_linear"), 1.0));
    LH_ASSIGN_OR_RETURN(const absl::string_view type,
                        file_.TextOr(Key("rope.scaling.type"), legacy == 1.0 ? "none" : "linear"));
    LH_ASSIGN_OR_RETURN(const double factor, file_.NumberOr(Key("rope.scaling.factor"), legacy));
    if (type == "linear") {
      config().rope_scaling.kind = RopeScaling::Kind::kLinear;
      config().rope_scaling.factor = factor;
    } else if (type != "none") {
      return file_.Error(absl::StrCat("has RoPE scaling \"", type,
                                      "\"; supported are none, linear and rope_freqs.weight"));
    }
    return absl::OkStatus();
  }

  // Absent tensors give an absent view.
  absl::StatusOr<WeightView> View(const std::string& name) {
    const GgufTensor* tensor = file_.FindTensor(name);
    if (tensor == nullptr) return WeightView{};
    used_.insert(tensor->name);
    for (size_t i = 2; i < tensor->shape.size(); ++i) {
      if (tensor->shape[i] != 1) {
        return file_.Error(absl::StrCat("tensor ", name, " has ", tensor->shape.size(),
                                        " dimensions; a matrix has two"));
      }
    }
    WeightView view;
    view.data = tensor->data;
    view.dtype = tensor->dtype;
    view.cols = tensor->shape[0];
    view.rows = tensor->shape.size() > 1 ? tensor->shape[1] : 1;
    return view;
  }

  absl::Status ReadWeights() {
    ModelWeights& weights = model_.weights;
    LH_ASSIGN_OR_RETURN(weights.embedding, View("token_embd.weight"));
    LH_ASSIGN_OR_RETURN(weights.final_norm, View("output_norm.weight"));
    LH_ASSIGN_OR_RETURN(weights.head, View("output.weight"));
    config().tied_head = !weights.head.present();
    if (config().tied_head) weights.head = weights.embedding;
    config().vocab = weights.embedding.rows;
    // Every layer has tensors of its own, so that a hostile count is refused before it is used.
    if (static_cast<uint64_t>(config().layers) > file_.tensors().size()) {
      return file_.Error(absl::StrCat("claims ", config().layers, " layers but has only ",
                                      file_.tensors().size(), " tensors"));
    }
    weights.layers.resize(config().layers);
    for (int i = 0; i < config().layers; ++i) {
      LH_RETURN_IF_ERROR(ReadLayer(absl::StrCat("blk.", i, "."), &weights.layers[i]));
    }
    config().qkv_bias = weights.layers[0].q_bias.present();
    config().qk_norm = weights.layers[0].q_norm.present();
    return ReadRopeDivisors();
  }

  absl::Status ReadLayer(const std::string& prefix, LayerWeights* layer) {
    const std::pair<absl::string_view, WeightView*> parts[] = {
        {"attn_norm.weight", &layer->attention_norm},
        {"attn_q.weight", &layer->q},
        {"attn_k.weight", &layer->k},
        {"attn_v.weight", &layer->v},
        {"attn_q.bias", &layer->q_bias},
        {"attn_k.bias", &layer->k_bias},
        {"attn_v.bias", &layer->v_bias},
        {"attn_q_norm.weight", &layer->q_norm},
        {"attn_k_norm.weight", &layer->k_norm},
        {"attn_output.weight", &layer->attention_out},
        {"ffn_norm.weight", &layer->ffn_norm},
        {"ffn_gate.weight", &layer->gate},
        {"ffn_up.weight", &layer->up},
        {"ffn_down.weight", &layer->down},
    };
    for (const auto& [name, view] : parts) {
      LH_ASSIGN_OR_RETURN(*view, View(absl::StrCat(prefix, name)));
    }
    return absl::OkStatus();
  }

  // Llama 3.1 files carry their RoPE scaling as divisors of the frequencies.
  absl::Status ReadRopeDivisors() {
    LH_ASSIGN_OR_RETURN(const WeightView divisors, View("rope_freqs.weight"));
    if (!divisors.present()) return absl::OkStatus();
    if (divisors.rows != 1 || divisors.cols != config().head_dim / 2) {
      return file_.Error(absl::StrCat("tensor rope_freqs.weight is [", divisors.rows, ", ",
                                      divisors.cols, "]; head_dim / 2 = ", config().head_dim / 2,
                                      " values are valid"));
    }
    config().rope_freq_divisors.resize(divisors.cols);
    DequantizeRow(divisors, 0, config().rope_freq_divisors.data());
    return absl::OkStatus();
  }

  // A tensor that nobody reads is a model that would be computed wrongly.
  absl::Status CheckNothingLeft() const {
    for (const GgufTensor& tensor : file_.tensors()) {
      if (!used_.contains(tensor.name)) {
        return file_.Error(absl::StrCat(
            "tensor \"", absl::CHexEscape(tensor.name), "\" has no place in a ", architecture_,
            " model of ", model_.config.layers, " layers; this variant of it is not supported"));
      }
    }
    return absl::OkStatus();
  }

  const GgufFile& file_;
  absl::string_view architecture_;
  ModelFile model_;
  absl::flat_hash_set<absl::string_view> used_;
};

}  // namespace

absl::StatusOr<ModelFile> ModelFromGguf(absl::Span<const std::byte> bytes,
                                        std::shared_ptr<const void> storage,
                                        const std::string& where) {
  LH_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Parse(bytes, where));
  LH_ASSIGN_OR_RETURN(ModelFile model, GgufModelReader(file).Run());
  model.weights.storage.push_back(std::move(storage));
  return model;
}

}  // namespace longhaul
