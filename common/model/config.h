// What a decoder-only transformer is, as data: Llama 2/3/3.1, Qwen2 and Qwen3 differ only in these
// fields.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longhaul {

// Which pairs of a head's dimensions rotate together. GGUF's llama files permute q and k rows for
// kInterleaved (2i, 2i+1); Hugging Face files use kHalf (i, i + head_dim/2).
enum class RopeStyle : uint8_t { kHalf, kInterleaved };

struct RopeScaling {
  enum class Kind : uint8_t { kNone, kLinear, kLlama3 };
  Kind kind = Kind::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;  // kLlama3 only, as the two below
  double high_freq_factor = 4.0;
  int64_t original_context_tokens = 8192;
};

struct ModelConfig {
  std::string name;          // what /v1/models shows
  std::string architecture;  // "llama", "qwen2", "qwen3": for people, never branched on

  int layers = 0;
  int hidden = 0;      // width of the residual stream
  int heads = 0;       // query heads
  int kv_heads = 0;    // key/value heads; divides heads
  int head_dim = 0;    // not always hidden / heads
  int ffn_hidden = 0;  // width of the gated feed-forward layer
  int64_t vocab = 0;   // rows of the embedding; as served, the tokenizer's ids
  int64_t context_tokens_max = 0;

  float rms_epsilon = 1e-5f;
  double rope_theta = 10000.0;
  RopeStyle rope_style = RopeStyle::kHalf;
  RopeScaling rope_scaling;
  std::vector<float> rope_freq_divisors;  // GGUF rope_freqs.weight [head_dim/2]; empty for none

  bool qkv_bias = false;   // Qwen2
  bool qk_norm = false;    // Qwen3: RMSNorm over each head of q and k before RoPE
  bool tied_head = false;  // the output head is the embedding

  std::vector<int32_t> eos_tokens;  // any of them ends a generation
};

}  // namespace longhaul
