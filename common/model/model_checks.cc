#include "common/model/model_checks.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

class ModelChecker {
 public:
  ModelChecker(const ModelFile& model, const std::string& where)
      : model_(model), config_(model.config), where_(where) {}

  absl::Status Run() const {
    LH_RETURN_IF_ERROR(CheckConfig());
    LH_RETURN_IF_ERROR(CheckRope());
    LH_RETURN_IF_ERROR(CheckWeights());
    return CheckTokenizer();
  }

 private:
  absl::Status Error(absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat(where_, ": ", message));
  }

  absl::Status InRange(absl::string_view what, int64_t value, int64_t max) const {
    if (value >= 1 && value <= max) return absl::OkStatus();
    return Error(absl::StrCat(what, " is ", value, "; 1 to ", max, " is valid"));
  }

  absl::Status CheckConfig() const {
    LH_RETURN_IF_ERROR(InRange("the number of layers", config_.layers, kLayersMax));
    LH_RETURN_IF_ERROR(InRange("the hidden width", config_.hidden, kWidthMax));
    LH_RETURN_IF_ERROR(InRange("the feed-forward width", config_.ffn_hidden, kWidthMax));
    LH_RETURN_IF_ERROR(InRange("the number of heads", config_.heads, kHeadsMax));
    LH_RETURN_IF_ERROR(InRange("the number of key/value heads", config_.kv_heads, kHeadsMax));
    LH_RETURN_IF_ERROR(InRange("the head dimension", config_.head_dim, kHeadDimMax));
    LH_RETURN_IF_ERROR(InRange("the vocabulary", config_.vocab, kVocabMax));
    LH_RETURN_IF_ERROR(InRange("the context", config_.context_tokens_max, kContextTokensMax));
    if (config_.heads % config_.kv_heads != 0) {
      return Error(absl::StrCat(config_.heads, " heads cannot share ", config_.kv_heads,
                                " key/value heads evenly"));
    }
    if (config_.head_dim % 2 != 0) {
      return Error(absl::StrCat("the head dimension is ", config_.head_dim, "; it must be even"));
    }
    if (!(config_.rms_epsilon > 0.0f && config_.rms_epsilon < 1.0f)) {
      return Error(absl::StrCat("the RMS epsilon is ", config_.rms_epsilon,
                                "; a number between 0 and 1 is valid"));
    }
    return absl::OkStatus();
  }

  absl::Status CheckRope() const {
    if (!std::isfinite(config_.rope_theta) || config_.rope_theta < 1.0) {
      return Error(absl::StrCat("the RoPE base is ", config_.rope_theta, "; at least 1 is valid"));
    }
    const RopeScaling& scaling = config_.rope_scaling;
    if (!std::isfinite(scaling.factor) || scaling.factor <= 0.0) {
      return Error(absl::StrCat("the RoPE scaling factor is ", scaling.factor,
                                "; a positive number is valid"));
    }
    if (scaling.kind == RopeScaling::Kind::kLlama3 &&
        !(scaling.low_freq_factor > 0.0 && scaling.high_freq_factor > scaling.low_freq_factor &&
          std::isfinite(scaling.high_freq_factor) && scaling.original_context_tokens > 0)) {
      return Error(absl::StrCat("llama3 RoPE scaling has low_freq_factor ", scaling.low_freq_factor,
                                ", high_freq_factor ", scaling.high_freq_factor,
                                " and original context ", scaling.original_context_tokens,
                                "; 0 < low < high and a positive context are valid"));
    }
    const auto& divisors = config_.rope_freq_divisors;
    if (!divisors.empty() && divisors.size() != static_cast<size_t>(config_.head_dim / 2)) {
      return Error(absl::StrCat(divisors.size(), " RoPE divisors for a head dimension of ",
                                config_.head_dim, "; half of it is valid"));
    }
    for (const float divisor : divisors) {
      if (!std::isfinite(divisor) || divisor <= 0.0f) {
        return Error(absl::StrCat("a RoPE divisor is ", divisor, "; positive numbers are valid"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Shape(absl::string_view name, const WeightView& view, int64_t rows, int64_t cols,
                     bool wanted = true) const {
    if (!wanted && !view.present()) return absl::OkStatus();
    if (!wanted) return Error(absl::StrCat("has ", name, " in some layers only"));
    if (!view.present()) return Error(absl::StrCat("the weight ", name, " is missing"));
    if (view.rows != rows || view.cols != cols) {
      return Error(absl::StrCat("the weight ", name, " is [", view.rows, ", ", view.cols,
                                "], but the configuration makes it [", rows, ", ", cols, "]"));
    }
    if (view.dtype == DType::kI32) {
      return Error(absl::StrCat("the weight ", name, " is of type i32; a real type is valid"));
    }
    return absl::OkStatus();
  }

  absl::Status CheckWeights() const {
    const ModelWeights& weights = model_.weights;
    LH_RETURN_IF_ERROR(Shape("embedding", weights.embedding, config_.vocab, config_.hidden));
    LH_RETURN_IF_ERROR(Shape("final norm", weights.final_norm, 1, config_.hidden));
    LH_RETURN_IF_ERROR(Shape("output head", weights.head, config_.vocab, config_.hidden));
    if (weights.layers.size() != static_cast<size_t>(config_.layers)) {
      return Error(absl::StrCat("has weights of ", weights.layers.size(), " layers; ",
                                config_.layers, " are configured"));
    }
    for (int i = 0; i < config_.layers; ++i) {
      LH_RETURN_IF_ERROR(CheckLayer(absl::StrCat("layer ", i, " "), weights.layers[i]));
    }
    return absl::OkStatus();
  }

  absl::Status CheckLayer(const std::string& layer, const LayerWeights& weights) const {
    const int64_t q_rows = int64_t{config_.heads} * config_.head_dim;
    const int64_t kv_rows = int64_t{config_.kv_heads} * config_.head_dim;
    const struct {
      absl::string_view name;
      const WeightView& view;
      int64_t rows;
      int64_t cols;
      bool wanted = true;
    } parts[] = {
        {"attention norm", weights.attention_norm, 1, config_.hidden},
        {"q", weights.q, q_rows, config_.hidden},
        {"k", weights.k, kv_rows, config_.hidden},
        {"v", weights.v, kv_rows, config_.hidden},
        {"q bias", weights.q_bias, 1, q_rows, config_.qkv_bias},
        {"k bias", weights.k_bias, 1, kv_rows, config_.qkv_bias},
        {"v bias", weights.v_bias, 1, kv_rows, config_.qkv_bias},
        {"q norm", weights.q_norm, 1, config_.head_dim, config_.qk_norm},
        {"k norm", weights.k_norm, 1, config_.head_dim, config_.qk_norm},
        {"attention output", weights.attention_out, config_.hidden, q_rows},
        {"ffn norm", weights.ffn_norm, 1, config_.hidden},
        {"gate", weights.gate, config_.ffn_hidden, config_.hidden},
        {"up", weights.up, config_.ffn_hidden, config_.hidden},
        {"down", weights.down, config_.hidden, config_.ffn_hidden},
    };
    for (const auto& part : parts) {
      LH_RETURN_IF_ERROR(
          Shape(absl::StrCat(layer, part.name), part.view, part.rows, part.cols, part.wanted));
    }
    return absl::OkStatus();
  }

  absl::Status CheckTokenizer() const {
    const TokenizerData& tokenizer = model_.tokenizer;
    const auto tokens = static_cast<int64_t>(tokenizer.tokens.size());
    if (tokens > config_.vocab) {
      return Error(absl::StrCat("the tokenizer has ", tokens, " tokens but the embedding only ",
                                config_.vocab, " rows"));
    }
    if (tokenizer.kinds.size() != tokenizer.tokens.size()) {
      return Error(absl::StrCat(tokenizer.kinds.size(), " token kinds for ", tokens, " tokens"));
    }
    for (const int32_t id : {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unknown_token}) {
      if (id < -1 || id >= tokens) {
        return Error(absl::StrCat("the special token ", id, " is not one of ", tokens, " tokens"));
      }
    }
    for (const int32_t id : config_.eos_tokens) {
      if (id < 0 || id >= config_.vocab) {
        return Error(
            absl::StrCat("the end token ", id, " is not in a vocabulary of ", config_.vocab));
      }
    }
    return absl::OkStatus();
  }

  const ModelFile& model_;
  const ModelConfig& config_;
  const std::string& where_;
};

}  // namespace

absl::Status CheckModel(const ModelFile& model, const std::string& where) {
  return ModelChecker(model, where).Run();
}

std::vector<int32_t> EndTokens(const TokenizerData& tokenizer, absl::Span<const int32_t> named) {
  constexpr absl::string_view kEnds[] = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>",
                                         "<|end_of_text|>"};
  std::vector<int32_t> ends;
  for (const int32_t id : named) {
    if (id >= 0) ends.push_back(id);
  }
  for (size_t i = 0; i < tokenizer.tokens.size(); ++i) {
    if (tokenizer.kinds[i] == TokenKind::kControl &&
        std::find(std::begin(kEnds), std::end(kEnds), tokenizer.tokens[i]) != std::end(kEnds)) {
      ends.push_back(static_cast<int32_t>(i));
    }
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  return ends;
}

}  // namespace longhaul
