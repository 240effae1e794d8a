#include "tests/common/model/tiny_model.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/random.h"
#include "common/model/half.h"
#include "common/model/model_checks.h"
#include "common/model/model_digest.h"

namespace longhaul {
namespace {

class Filler {
 public:
  explicit Filler(uint64_t seed) : seed_(seed) {}

  WeightView Vector(int64_t cols, float center, float spread) {
    return Plain(DType::kF32, 1, cols, center, spread);
  }

  // Uniform in +-amplitude, whatever the type.
  WeightView Matrix(DType dtype, int64_t rows, int64_t cols, float amplitude) {
    if (BlockElements(dtype) == 1) return Plain(dtype, rows, cols, 0.0f, amplitude);
    WeightView view = Allocate(dtype, rows, cols);
    const int64_t blocks = rows * cols / BlockElements(dtype);
    for (int64_t i = 0; i < blocks; ++i) {
      FillBlock(dtype, amplitude, const_cast<std::byte*>(view.data) + i * BlockBytes(dtype));
    }
    return view;
  }

  std::vector<std::shared_ptr<const void>> TakeStorage() { return std::move(storage_); }

 private:
  float Uniform() { return static_cast<float>(UniformAt(seed_, counter_++)); }

  WeightView Allocate(DType dtype, int64_t rows, int64_t cols) {
    WeightView view;
    view.dtype = dtype;
    view.rows = rows;
    view.cols = cols;
    auto owned = std::make_shared<std::vector<std::byte>>(view.bytes());
    view.data = owned->data();
    storage_.push_back(std::move(owned));
    return view;
  }

  WeightView Plain(DType dtype, int64_t rows, int64_t cols, float center, float spread) {
    WeightView view = Allocate(dtype, rows, cols);
    auto* data = const_cast<std::byte*>(view.data);
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float value = center + spread * (2.0f * Uniform() - 1.0f);
      if (dtype == DType::kF32) {
        std::memcpy(data + i * 4, &value, 4);
      } else {
        const uint16_t bits = dtype == DType::kF16 ? F16FromF32(value) : BF16FromF32(value);
        std::memcpy(data + i * 2, &bits, 2);
      }
    }
    return view;
  }

  // Random quants under scales that make them span +-amplitude.
  void FillBlock(DType dtype, float amplitude, std::byte* block) {
    for (int64_t i = 0; i < BlockBytes(dtype); ++i) {
      block[i] = static_cast<std::byte>(UniformAt(seed_, counter_++) * 256.0);
    }
    const auto put = [block](int64_t at, float value) {
      const uint16_t bits = F16FromF32(value);
      std::memcpy(block + at, &bits, 2);
    };
    switch (dtype) {
      case DType::kQ8_0:
        return put(0, amplitude / 127.0f);
      case DType::kQ4_0:
        return put(0, amplitude / 8.0f);
      case DType::kQ5_0:
        return put(0, amplitude / 16.0f);
      case DType::kQ4_1:
        put(0, amplitude / 7.5f);
        return put(2, -amplitude);
      case DType::kQ5_1:
        put(0, amplitude / 15.5f);
        return put(2, -amplitude);
      case DType::kQ4_K:  // quants to 15 (31) times group scales to 63, less minima to 63
        put(0, amplitude / (7.5f * 63.0f));
        return put(2, amplitude / 63.0f);
      case DType::kQ5_K:
        put(0, amplitude / (15.5f * 63.0f));
        return put(2, amplitude / 63.0f);
      case DType::kQ6_K:  // quants -32 to 31 times group scales -128 to 127
        return put(208, amplitude / (32.0f * 128.0f));
      default:
        LH_CHECK(false, "not a block type");
    }
  }

  uint64_t seed_;
  uint64_t counter_ = 0;
  std::vector<std::shared_ptr<const void>> storage_;
};

void AppendUtf8(uint32_t code_point, std::string* out) {
  if (code_point < 0x80) {
    out->push_back(static_cast<char>(code_point));
  } else {
    out->push_back(static_cast<char>(0xc0 | (code_point >> 6)));
    out->push_back(static_cast<char>(0x80 | (code_point & 0x3f)));
  }
}

// GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100 on.
std::vector<std::string> ByteAlphabet() {
  std::vector<std::string> alphabet(256);
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    AppendUtf8(printable ? byte : next++, &alphabet[byte]);
  }
  return alphabet;
}

TokenizerData MakeTokenizer() {
  TokenizerData tokenizer;
  tokenizer.tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  for (std::string& letter : ByteAlphabet()) tokenizer.tokens.push_back(std::move(letter));
  tokenizer.merges = {{"t", "h"}, {"th", "e"}, {"Ġ", "the"}, {"Ġ", "a"}, {"i", "n"}};
  for (const auto& [left, right] : tokenizer.merges) tokenizer.tokens.push_back(left + right);
  tokenizer.kinds.assign(tokenizer.tokens.size(), TokenKind::kNormal);
  for (int i = 0; i < 3; ++i) tokenizer.kinds[i] = TokenKind::kControl;
  tokenizer.pre_tokenizer = "gpt2";
  tokenizer.bos_token = 1;
  tokenizer.eos_token = 2;
  tokenizer.unknown_token = 0;
  tokenizer.chat_template =
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
      "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
  return tokenizer;
}

ModelConfig MakeConfig(const TinyModelOptions& options) {
  ModelConfig config;
  config.name = "tiny";
  config.architecture = options.qk_norm ? "qwen3" : options.qkv_bias ? "qwen2" : "llama";
  config.layers = options.layers;
  config.hidden = options.hidden;
  config.heads = options.heads;
  config.kv_heads = options.kv_heads;
  config.head_dim = options.head_dim;
  config.ffn_hidden = options.ffn_hidden;
  config.vocab = options.vocab;
  config.context_tokens_max = options.context_tokens_max;
  config.rope_theta = options.rope_theta;
  config.rope_style = options.rope_style;
  config.rope_scaling = options.rope_scaling;
  config.qkv_bias = options.qkv_bias;
  config.qk_norm = options.qk_norm;
  config.tied_head = options.tied_head;
  if (options.rope_divisors) {
    for (int i = 0; i < options.head_dim / 2; ++i) {
      config.rope_freq_divisors.push_back(1.0f + 0.5f * static_cast<float>(i));
    }
  }
  return config;
}

LayerWeights MakeLayer(const TinyModelOptions& options, Filler* filler) {
  const int64_t q_rows = int64_t{options.heads} * options.head_dim;
  const int64_t kv_rows = int64_t{options.kv_heads} * options.head_dim;
  // A sum over `cols` terms of this amplitude keeps the size of its input; q and k get a little
  // more, so that attention is not flat.
  const auto matrix = [&](int64_t rows, int64_t cols, float gain) {
    const float amplitude = gain * std::sqrt(3.0f / static_cast<float>(cols));
    return filler->Matrix(options.dtype, rows, cols, amplitude);
  };
  LayerWeights layer;
  layer.attention_norm = filler->Vector(options.hidden, 1.0f, 0.2f);
  layer.q = matrix(q_rows, options.hidden, 1.5f);
  layer.k = matrix(kv_rows, options.hidden, 1.5f);
  layer.v = matrix(kv_rows, options.hidden, 1.0f);
  if (options.qkv_bias) {
    layer.q_bias = filler->Vector(q_rows, 0.0f, 0.5f);
    layer.k_bias = filler->Vector(kv_rows, 0.0f, 0.5f);
    layer.v_bias = filler->Vector(kv_rows, 0.0f, 0.5f);
  }
  if (options.qk_norm) {
    layer.q_norm = filler->Vector(options.head_dim, 1.2f, 0.2f);
    layer.k_norm = filler->Vector(options.head_dim, 1.2f, 0.2f);
  }
  layer.attention_out = matrix(options.hidden, q_rows, 1.0f);
  layer.ffn_norm = filler->Vector(options.hidden, 1.0f, 0.2f);
  layer.gate = matrix(options.ffn_hidden, options.hidden, 1.5f);
  layer.up = matrix(options.ffn_hidden, options.hidden, 1.5f);
  layer.down = matrix(options.hidden, options.ffn_hidden, 1.0f);
  return layer;
}

}  // namespace

ModelFile MakeTinyModel(const TinyModelOptions& options) {
  LH_CHECK(options.vocab >= kTinyModelTokens, absl::StrCat("vocab ", options.vocab));
  ModelFile model;
  model.config = MakeConfig(options);
  model.tokenizer = MakeTokenizer();
  model.config.eos_tokens = EndTokens(model.tokenizer, {model.tokenizer.eos_token});
  Filler filler(options.seed);
  ModelWeights& weights = model.weights;
  weights.embedding = filler.Matrix(options.dtype, options.vocab, options.hidden, 0.6f);
  for (int i = 0; i < options.layers; ++i) weights.layers.push_back(MakeLayer(options, &filler));
  weights.final_norm = filler.Vector(options.hidden, 1.0f, 0.2f);
  weights.head = options.tied_head
                     ? weights.embedding
                     : filler.Matrix(options.dtype, options.vocab, options.hidden, 0.6f);
  weights.storage = filler.TakeStorage();
  const absl::Status status = CheckModel(model, "tiny model");
  LH_CHECK(status.ok(), status.ToString());
  model.digest = DigestOf(model);
  return model;
}

}  // namespace longhaul
