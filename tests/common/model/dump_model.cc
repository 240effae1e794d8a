// dump_model MODEL FLOATS: what LoadModelFile makes of a model, for the Python tests to compare
// with what they read themselves. Prints JSON; writes all weights, dequantised, to FLOATS as
// float32. Ends with 1 and the error's text when the model is refused.
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/model/dequantize.h"
#include "common/model/model_file.h"

namespace longhaul {
namespace {

class WeightDump {
 public:
  explicit WeightDump(const char* path) : floats_(path, std::ios::binary) {}

  void Add(const std::string& name, const WeightView& view) {
    if (!view.present()) return;
    list_.push_back({{"name", name},
                     {"dtype", std::string(DTypeName(view.dtype))},
                     {"rows", view.rows},
                     {"cols", view.cols}});
    std::vector<float> row(view.cols);
    for (int64_t i = 0; i < view.rows; ++i) {
      DequantizeRow(view, i, row.data());
      floats_.write(reinterpret_cast<const char*>(row.data()),
                    static_cast<std::streamsize>(row.size() * sizeof(float)));
    }
  }

  void AddAll(const ModelWeights& weights) {
    Add("embedding", weights.embedding);
    Add("final_norm", weights.final_norm);
    Add("head", weights.head);
    for (size_t i = 0; i < weights.layers.size(); ++i) {
      const LayerWeights& layer = weights.layers[i];
      const std::pair<const char*, const WeightView&> parts[] = {
          {"attention_norm", layer.attention_norm},
          {"q", layer.q},
          {"k", layer.k},
          {"v", layer.v},
          {"q_bias", layer.q_bias},
          {"k_bias", layer.k_bias},
          {"v_bias", layer.v_bias},
          {"q_norm", layer.q_norm},
          {"k_norm", layer.k_norm},
          {"attention_out", layer.attention_out},
          {"ffn_norm", layer.ffn_norm},
          {"gate", layer.gate},
          {"up", layer.up},
          {"down", layer.down},
      };
      for (const auto& [name, view] : parts) Add(absl::StrCat(i, ".", name), view);
    }
  }

  boost::json::array TakeList() { return std::move(list_); }

 private:
  std::ofstream floats_;
  boost::json::array list_;
};

boost::json::object Config(const ModelConfig& config) {
  constexpr const char* kScalings[] = {"none", "linear", "llama3"};
  return {{"name", config.name},
          {"architecture", config.architecture},
          {"layers", config.layers},
          {"hidden", config.hidden},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},
          {"ffn_hidden", config.ffn_hidden},
          {"vocab", config.vocab},
          {"context_tokens_max", config.context_tokens_max},
          {"rms_epsilon", config.rms_epsilon},
          {"rope_theta", config.rope_theta},
          {"rope_interleaved", config.rope_style == RopeStyle::kInterleaved},
          {"rope_scaling", kScalings[static_cast<size_t>(config.rope_scaling.kind)]},
          {"rope_factor", config.rope_scaling.factor},
          {"rope_low", config.rope_scaling.low_freq_factor},
          {"rope_high", config.rope_scaling.high_freq_factor},
          {"rope_original_context", config.rope_scaling.original_context_tokens},
          {"rope_divisors", boost::json::value_from(config.rope_freq_divisors)},
          {"qkv_bias", config.qkv_bias},
          {"qk_norm", config.qk_norm},
          {"tied_head", config.tied_head},
          {"eos_tokens", boost::json::value_from(config.eos_tokens)}};
}

boost::json::object Tokenizer(const TokenizerData& tokenizer) {
  boost::json::array kinds;
  for (const TokenKind kind : tokenizer.kinds) kinds.push_back(static_cast<int>(kind));
  boost::json::array merges;
  for (const auto& [left, right] : tokenizer.merges) {
    merges.push_back(boost::json::array{left, right});
  }
  return {{"sentence_piece", tokenizer.model == TokenizerData::Model::kSentencePieceBpe},
          {"tokens", boost::json::value_from(tokenizer.tokens)},
          {"kinds", kinds},
          {"scores", boost::json::value_from(tokenizer.scores)},
          {"merges", merges},
          {"pre_tokenizer", tokenizer.pre_tokenizer},
          {"patterns", boost::json::value_from(tokenizer.pre_tokenizer_patterns)},
          {"digits", tokenizer.digits_split_single},
          {"nfc", tokenizer.normalize_nfc},
          {"ignore_merges", tokenizer.ignore_merges},
          {"add_space_prefix", tokenizer.add_space_prefix},
          {"space_prefix_first_only", tokenizer.space_prefix_first_only},
          {"add_bos", tokenizer.add_bos},
          {"add_eos", tokenizer.add_eos},
          {"bos_token", tokenizer.bos_token},
          {"eos_token", tokenizer.eos_token},
          {"unknown_token", tokenizer.unknown_token},
          {"chat_template", tokenizer.chat_template}};
}

int Dump(const char* model_path, const char* floats_path) {
  const absl::StatusOr<ModelFile> model = LoadModelFile(model_path);
  if (!model.ok()) {
    std::cout << model.status().ToString() << "\n";
    return 1;
  }
  WeightDump weights(floats_path);
  weights.AddAll(model->weights);
  const boost::json::object all = {
      {"config", Config(model->config)},
      {"tokenizer", Tokenizer(model->tokenizer)},
      {"digest", absl::StrCat(absl::Hex(model->digest.high), "-", absl::Hex(model->digest.low))},
      {"weights", weights.TakeList()}};
  std::cout << boost::json::serialize(all) << "\n";
  return 0;
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: dump_model MODEL FLOATS\n";
    return 2;
  }
  return longhaul::Dump(argv[1], argv[2]);
}
