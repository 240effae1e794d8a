#include "common/model/model_digest.h"

#include <algorithm>
#include <bit>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace longhaul {
namespace {

constexpr int64_t kSampleBytes = 1024;
constexpr int64_t kSamples = 4;  // evenly over the weight, its beginning and end among them

class Digester {
 public:
  void Bytes(const void* data, size_t bytes) { hash_ = Hash128Of(data, bytes, hash_); }
  void Text(absl::string_view text) { Bytes(text.data(), text.size()); }
  void Number(int64_t value) { Bytes(&value, sizeof(value)); }
  void Number(double value) { Number(std::bit_cast<int64_t>(value)); }

  void Weight(const WeightView& view) {
    Number(view.present() ? static_cast<int64_t>(view.dtype) : -1);
    if (!view.present()) return;
    Number(view.rows);
    Number(view.cols);
    const int64_t bytes = view.bytes();
    const int64_t sample = std::min(bytes, kSampleBytes);
    for (int64_t i = 0; i < kSamples; ++i) {
      Bytes(view.data + (bytes - sample) / (kSamples - 1) * i, sample);
    }
    Bytes(view.data + bytes - sample, sample);
  }

  Hash128 hash() const { return hash_; }

 private:
  Hash128 hash_;
};

void DigestConfig(const ModelConfig& config, Digester* digester) {
  const int64_t numbers[] = {config.layers,
                             config.hidden,
                             config.heads,
                             config.kv_heads,
                             config.head_dim,
                             config.ffn_hidden,
                             config.vocab,
                             config.context_tokens_max,
                             static_cast<int64_t>(config.rope_style),
                             static_cast<int64_t>(config.rope_scaling.kind),
                             config.rope_scaling.original_context_tokens,
                             config.qkv_bias,
                             config.qk_norm,
                             config.tied_head};
  digester->Bytes(numbers, sizeof(numbers));
  const double reals[] = {config.rms_epsilon, config.rope_theta, config.rope_scaling.factor,
                          config.rope_scaling.low_freq_factor,
                          config.rope_scaling.high_freq_factor};
  digester->Bytes(reals, sizeof(reals));
  for (const float divisor : config.rope_freq_divisors) digester->Number(double{divisor});
  for (const int32_t token : config.eos_tokens) digester->Number(int64_t{token});
}

void DigestWeights(const ModelWeights& weights, Digester* digester) {
  digester->Weight(weights.embedding);
  digester->Weight(weights.final_norm);
  digester->Weight(weights.head);
  for (const LayerWeights& layer : weights.layers) {
    for (const WeightView* view :
         {&layer.attention_norm, &layer.q, &layer.k, &layer.v, &layer.q_bias, &layer.k_bias,
          &layer.v_bias, &layer.q_norm, &layer.k_norm, &layer.attention_out, &layer.ffn_norm,
          &layer.gate, &layer.up, &layer.down}) {
      digester->Weight(*view);
    }
  }
}

void DigestTokenizer(const TokenizerData& tokenizer, Digester* digester) {
  digester->Number(static_cast<int64_t>(tokenizer.model));
  // One buffer for the long lists: a hash call for each of 150,000 tokens would take longer. The
  // lengths keep neighbours apart.
  std::string flat;
  const auto append = [&flat](absl::string_view text) {
    absl::StrAppend(&flat, text.size(), ":", text);
  };
  for (size_t i = 0; i < tokenizer.tokens.size(); ++i) {
    append(tokenizer.tokens[i]);
    flat.push_back(static_cast<char>(tokenizer.kinds[i]));
  }
  for (const auto& [left, right] : tokenizer.merges) {
    append(left);
    append(right);
  }
  append(tokenizer.pre_tokenizer);
  for (const std::string& pattern : tokenizer.pre_tokenizer_patterns) append(pattern);
  append(tokenizer.chat_template);
  digester->Text(flat);
  digester->Bytes(tokenizer.scores.data(), tokenizer.scores.size() * sizeof(float));
  const int64_t rest[] = {tokenizer.digits_split_single,
                          tokenizer.normalize_nfc,
                          tokenizer.ignore_merges,
                          tokenizer.add_space_prefix,
                          tokenizer.space_prefix_first_only,
                          tokenizer.add_bos,
                          tokenizer.add_eos,
                          tokenizer.bos_token,
                          tokenizer.eos_token,
                          tokenizer.unknown_token};
  digester->Bytes(rest, sizeof(rest));
}

}  // namespace

Hash128 DigestOf(const ModelFile& model) {
  Digester digester;
  DigestConfig(model.config, &digester);
  DigestWeights(model.weights, &digester);
  DigestTokenizer(model.tokenizer, &digester);
  return digester.hash();
}

}  // namespace longhaul
