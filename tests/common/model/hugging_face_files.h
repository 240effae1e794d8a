// A small Hugging Face folder on disk and its files as text, for tests that change them.
#pragma once

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/base/check.h"

namespace longhaul {

// One layer, 8 wide, two heads, eight tokens; tied.
inline std::vector<std::byte> SmallSafetensors() {
  const std::pair<std::string, std::vector<int>> tensors[] = {
      {"model.embed_tokens.weight", {8, 8}},
      {"model.norm.weight", {8}},
      {"model.layers.0.input_layernorm.weight", {8}},
      {"model.layers.0.self_attn.q_proj.weight", {8, 8}},
      {"model.layers.0.self_attn.k_proj.weight", {4, 8}},
      {"model.layers.0.self_attn.v_proj.weight", {4, 8}},
      {"model.layers.0.self_attn.o_proj.weight", {8, 8}},
      {"model.layers.0.post_attention_layernorm.weight", {8}},
      {"model.layers.0.mlp.gate_proj.weight", {8, 8}},
      {"model.layers.0.mlp.up_proj.weight", {8, 8}},
      {"model.layers.0.mlp.down_proj.weight", {8, 8}},
  };
  std::vector<std::string> entries;
  size_t at = 0;
  for (const auto& [name, shape] : tensors) {
    size_t bytes = 2;
    for (const int extent : shape) bytes *= extent;
    entries.push_back(absl::StrCat("\"", name, R"(":{"dtype":"BF16","shape":[)",
                                   absl::StrJoin(shape, ","), R"(],"data_offsets":[)", at, ",",
                                   at + bytes, "]}"));
    at += bytes;
  }
  std::string header = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = header.size();
  std::vector<std::byte> file(8 + header.size() + at, std::byte{0x3f});
  std::memcpy(file.data(), &header_bytes, 8);
  std::memcpy(file.data() + 8, header.data(), header.size());
  return file;
}

inline constexpr absl::string_view kSmallConfig = R"({
  "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 8,
  "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
  "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
  "rope_theta": 10000.0, "tie_word_embeddings": true, "vocab_size": 8, "eos_token_id": 1})";

inline constexpr absl::string_view kSmallTokenizer = R"({
  "added_tokens": [{"id": 0, "content": "<s>", "special": true},
                   {"id": 1, "content": "</s>", "special": true},
                   {"id": 2, "content": "<tool>", "special": false}],
  "normalizer": {"type": "NFC"},
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false},
    {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
  "post_processor": {"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
  "model": {"type": "BPE", "ignore_merges": true,
            "vocab": {"a": 3, "b": 4, "c": 5, "ab": 6}, "merges": ["a b"]}})";

inline constexpr absl::string_view kSmallTokenizerConfig =
    R"({"eos_token": {"content": "</s>"}, "chat_template": "{{ messages }}"})";

// A temporary folder with these files, removed with the object.
class HuggingFaceFolder {
 public:
  HuggingFaceFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "longhaul_XXXXXX").string();
    LH_CHECK(mkdtemp(pattern.data()) != nullptr, "no temporary folder");
    path_ = pattern;
    const std::vector<std::byte> weights = SmallSafetensors();
    Write("model.safetensors", {reinterpret_cast<const char*>(weights.data()), weights.size()});
    Write("config.json", kSmallConfig);
    Write("generation_config.json", R"({"eos_token_id": [1, 2]})");
    Write("tokenizer.json", kSmallTokenizer);
    Write("tokenizer_config.json", kSmallTokenizerConfig);
  }
  ~HuggingFaceFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  HuggingFaceFolder(const HuggingFaceFolder&) = delete;
  HuggingFaceFolder& operator=(const HuggingFaceFolder&) = delete;

  const std::string& path() const { return path_; }

  void Write(const std::string& name, absl::string_view text) const {
    std::ofstream(path_ + "/" + name, std::ios::binary).write(text.data(), text.size());
  }
  std::string Read(const std::string& name) const {
    std::ifstream file(path_ + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

 private:
  std::string path_;
};

}  // namespace longhaul
