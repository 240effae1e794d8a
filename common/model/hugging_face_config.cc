#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/model/hugging_face.h"
#include "common/model/json_fields.h"
#include "common/model/model_checks.h"

namespace longhaul {
namespace {

// A field that is one token id or a list of them.
absl::Status AppendTokens(const JsonFields& fields, absl::string_view name,
                          std::vector<int32_t>* tokens) {
  const boost::json::value* value = fields.Find(name);
  if (value == nullptr) return absl::OkStatus();
  const auto append = [&](const boost::json::value& item) {
    if (!item.is_int64() || item.get_int64() < 0 || item.get_int64() >= kVocabMax) {
      return fields.Error(absl::StrCat("the field ", name, " is no token id or list of them"));
    }
    tokens->push_back(static_cast<int32_t>(item.get_int64()));
    return absl::OkStatus();
  };
  if (!value->is_array()) return append(*value);
  for (const boost::json::value& item : value->get_array()) LH_RETURN_IF_ERROR(append(item));
  return absl::OkStatus();
}

class ConfigReader {
 public:
  explicit ConfigReader(const JsonFields& fields) : fields_(fields) {}

  absl::StatusOr<ModelConfig> Run() {
    LH_RETURN_IF_ERROR(ReadArchitecture());
    LH_RETURN_IF_ERROR(ReadShape());
    LH_RETURN_IF_ERROR(ReadRope());
    LH_RETURN_IF_ERROR(CheckWindow());
    LH_RETURN_IF_ERROR(AppendTokens(fields_, "eos_token_id", &config_.eos_tokens));
    return std::move(config_);
  }

 private:
  absl::Status ReadArchitecture() {
    LH_ASSIGN_OR_RETURN(const boost::json::array* names, fields_.Array("architectures"));
    const boost::json::string* name = names->size() == 1 ? names->front().if_string() : nullptr;
    if (name == nullptr) return fields_.Error("the field architectures does not name one class");
    const absl::string_view text = TextOf(*name);
    constexpr std::pair<absl::string_view, absl::string_view> kKnown[] = {
        {"LlamaForCausalLM", "llama"},
        {"MistralForCausalLM", "mistral"},
        {"Qwen2ForCausalLM", "qwen2"},
        {"Qwen3ForCausalLM", "qwen3"}};
    const auto* known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                     [text](const auto& entry) { return entry.first == text; });
    if (known == std::end(kKnown)) {
      return fields_.Error(absl::StrCat("the architecture ", text.substr(0, 80),
                                        " is not supported; LlamaForCausalLM, MistralForCausalLM, ",
                                        "Qwen2ForCausalLM and Qwen3ForCausalLM are"));
    }
    config_.architecture = std::string(known->second);
    if (fields_.Find("quantization_config") != nullptr) {
      return fields_.Error(
          "the field quantization_config is set, but quantised Hugging Face models are not "
          "supported; use the unquantised model or a GGUF file");
    }
    LH_ASSIGN_OR_RETURN(const absl::string_view activation, fields_.TextOr("hidden_act", "silu"));
    if (activation != "silu" && activation != "swish") {
      return fields_.Error(
          absl::StrCat("hidden_act ", activation.substr(0, 80), " is not supported; silu is"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadShape() {
    LH_ASSIGN_OR_RETURN(config_.layers, fields_.Integer("num_hidden_layers", 1, kLayersMax));
    LH_ASSIGN_OR_RETURN(config_.hidden, fields_.Integer("hidden_size", 1, kWidthMax));
    LH_ASSIGN_OR_RETURN(config_.ffn_hidden, fields_.Integer("intermediate_size", 1, kWidthMax));
    LH_ASSIGN_OR_RETURN(config_.heads, fields_.Integer("num_attention_heads", 1, kHeadsMax));
    LH_ASSIGN_OR_RETURN(config_.kv_heads,
                        fields_.IntegerOr("num_key_value_heads", 1, kHeadsMax, config_.heads));
    LH_ASSIGN_OR_RETURN(config_.head_dim, fields_.IntegerOr("head_dim", 1, kHeadDimMax,
                                                            config_.hidden / config_.heads));
    LH_ASSIGN_OR_RETURN(config_.vocab, fields_.Integer("vocab_size", 1, kVocabMax));
    LH_ASSIGN_OR_RETURN(config_.context_tokens_max,
                        fields_.Integer("max_position_embeddings", 1, kContextTokensMax));
    LH_ASSIGN_OR_RETURN(const double epsilon, fields_.Number("rms_norm_eps"));
    config_.rms_epsilon = static_cast<float>(epsilon);
    LH_ASSIGN_OR_RETURN(config_.tied_head, fields_.BoolOr("tie_word_embeddings", false));
    return absl::OkStatus();
  }

  // Older files have rope_theta and rope_scaling, newer ones rope_parameters with both in it.
  absl::Status ReadRope() {
    config_.rope_style = RopeStyle::kHalf;
    LH_ASSIGN_OR_RETURN(config_.rope_theta, fields_.NumberOr("rope_theta", 10000.0));
    LH_RETURN_IF_ERROR(CheckPartialRotary(fields_));
    for (const absl::string_view name : {"rope_scaling", "rope_parameters"}) {
      if (fields_.Find(name) == nullptr) continue;
      LH_ASSIGN_OR_RETURN(const JsonFields rope, fields_.Object(name));
      LH_ASSIGN_OR_RETURN(config_.rope_theta, rope.NumberOr("rope_theta", config_.rope_theta));
      LH_RETURN_IF_ERROR(CheckPartialRotary(rope));
      LH_RETURN_IF_ERROR(ReadRopeScaling(rope));
    }
    return absl::OkStatus();
  }

  static absl::Status CheckPartialRotary(const JsonFields& fields) {
    LH_ASSIGN_OR_RETURN(const double part, fields.NumberOr("partial_rotary_factor", 1.0));
    if (part == 1.0) return absl::OkStatus();
    return fields.Error(absl::StrCat("partial_rotary_factor ", part, " is not supported; 1 is"));
  }

  absl::Status ReadRopeScaling(const JsonFields& rope) {
    LH_ASSIGN_OR_RETURN(const absl::string_view legacy, rope.TextOr("type", "default"));
    LH_ASSIGN_OR_RETURN(const absl::string_view type, rope.TextOr("rope_type", legacy));
    RopeScaling& scaling = config_.rope_scaling;
    if (type == "default") return absl::OkStatus();
    if (type != "linear" && type != "llama3") {
      return rope.Error(absl::StrCat("the RoPE type ", type.substr(0, 80),
                                     " is not supported; default, linear and llama3 are"));
    }
    LH_ASSIGN_OR_RETURN(scaling.factor, rope.Number("factor"));
    scaling.kind = RopeScaling::Kind::kLinear;
    if (type == "linear") return absl::OkStatus();
    scaling.kind = RopeScaling::Kind::kLlama3;
    LH_ASSIGN_OR_RETURN(scaling.low_freq_factor, rope.Number("low_freq_factor"));
    LH_ASSIGN_OR_RETURN(scaling.high_freq_factor, rope.Number("high_freq_factor"));
    LH_ASSIGN_OR_RETURN(scaling.original_context_tokens,
                        rope.Integer("original_max_position_embeddings", 1, kContextTokensMax));
    return absl::OkStatus();
  }

  // A window that is never left is no window.
  absl::Status CheckWindow() {
    LH_ASSIGN_OR_RETURN(const bool qwen_uses_it, fields_.BoolOr("use_sliding_window", false));
    const bool mistral = config_.architecture == "mistral";
    if (!qwen_uses_it && !mistral) return absl::OkStatus();
    LH_ASSIGN_OR_RETURN(
        const int64_t window,
        fields_.IntegerOr("sliding_window", 1, kContextTokensMax, config_.context_tokens_max));
    if (window >= config_.context_tokens_max) return absl::OkStatus();
    return fields_.Error(absl::StrCat("attends over a sliding window of ", window,
                                      " tokens, which is not supported; to use the ",
                                      "model within the window set max_position_embeddings to ",
                                      window, " (now ", config_.context_tokens_max, ")"));
  }

  const JsonFields& fields_;
  ModelConfig config_;
};

}  // namespace

absl::StatusOr<ModelConfig> ConfigFromHuggingFace(const std::string& folder) {
  const std::string path = folder + "/config.json";
  LH_ASSIGN_OR_RETURN(const boost::json::value root, ParseJsonFile(path, kConfigBytesMax));
  LH_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Make(root, path));
  LH_ASSIGN_OR_RETURN(ModelConfig config, ConfigReader(fields).Run());

  const std::string generation_path = folder + "/generation_config.json";
  const absl::StatusOr<boost::json::value> generation =
      ParseJsonFile(generation_path, kConfigBytesMax);
  if (absl::IsNotFound(generation.status())) return config;
  LH_RETURN_IF_ERROR(generation.status());
  LH_ASSIGN_OR_RETURN(const JsonFields more, JsonFields::Make(*generation, generation_path));
  LH_RETURN_IF_ERROR(AppendTokens(more, "eos_token_id", &config.eos_tokens));
  return config;
}

}  // namespace longhaul
