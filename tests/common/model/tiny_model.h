// Seeded little models in memory, for tests that need a ModelFile of a given shape without a file.
// The weights are noise of sensible size, so that logits differ clearly between tokens.
#pragma once

#include <cstdint>

#include "common/model/model_file.h"

namespace longhaul {

struct TinyModelOptions {
  uint64_t seed = 1;
  int layers = 2;
  int hidden = 64;
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 16;
  int ffn_hidden = 96;
  int64_t vocab = 320;  // at least kTinyModelTokens
  int64_t context_tokens_max = 512;

  RopeStyle rope_style = RopeStyle::kHalf;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  bool rope_divisors = false;  // fills config.rope_freq_divisors
  bool qkv_bias = false;
  bool qk_norm = false;
  bool tied_head = true;

  // Of the matrices. Block types need widths that are multiples of BlockElements. Norms, biases and
  // divisors are f32.
  DType dtype = DType::kF32;
};

// The tokenizer: <|endoftext|> 0, <|im_start|> 1, <|im_end|> 2, byte b at 3 + b, then a few merges;
// with a ChatML template. Rows of the embedding above belong to no token.
inline constexpr int64_t kTinyModelTokens = 3 + 256 + 5;

// The returned model owns its weights (weights.storage) and has passed CheckModel.
ModelFile MakeTinyModel(const TinyModelOptions& options);

}  // namespace longhaul
