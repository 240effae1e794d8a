// Writes GGUF files in memory, valid ones and, on request, lying ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/model/gguf.h"

namespace longhaul {

class GgufBuilder {
 public:
  GgufBuilder& Text(const std::string& key, const std::string& value) {
    Key(key, GgufType::kString);
    Put(&metadata_, value);
    return *this;
  }
  GgufBuilder& U32(const std::string& key, uint32_t value) {
    Key(key, GgufType::kU32);
    Raw(&metadata_, value);
    return *this;
  }
  GgufBuilder& F32(const std::string& key, float value) {
    Key(key, GgufType::kF32);
    Raw(&metadata_, value);
    return *this;
  }
  GgufBuilder& Bool(const std::string& key, uint8_t value) {
    Key(key, GgufType::kBool);
    Raw(&metadata_, value);
    return *this;
  }
  GgufBuilder& Texts(const std::string& key, const std::vector<std::string>& values) {
    ArrayHeader(key, GgufType::kString, values.size());
    for (const std::string& value : values) Put(&metadata_, value);
    return *this;
  }
  GgufBuilder& I32s(const std::string& key, const std::vector<int32_t>& values) {
    ArrayHeader(key, GgufType::kI32, values.size());
    for (const int32_t value : values) Raw(&metadata_, value);
    return *this;
  }
  // The elements are left to Append.
  GgufBuilder& ArrayHeader(const std::string& key, GgufType element, uint64_t count) {
    Key(key, GgufType::kArray);
    Raw(&metadata_, static_cast<uint32_t>(element));
    Raw(&metadata_, count);
    return *this;
  }
  template <typename T>
  GgufBuilder& Append(T value) {
    Raw(&metadata_, value);
    return *this;
  }

  // `ggml_type` 0 is F32. The data are small numbers in `bytes` bytes, at the next multiple of 32.
  GgufBuilder& Tensor(const std::string& name, const std::vector<uint64_t>& shape,
                      uint32_t ggml_type, size_t bytes) {
    data_.resize((data_.size() + 31) / 32 * 32);
    TensorAt(name, shape, ggml_type, data_.size());
    for (size_t i = 0; i < bytes / sizeof(float); ++i) {
      Raw(&data_, static_cast<float>(i % 7) * 0.1f + 0.1f);
    }
    return *this;
  }
  GgufBuilder& TensorAt(const std::string& name, const std::vector<uint64_t>& shape,
                        uint32_t ggml_type, uint64_t offset) {
    Put(&table_, name);
    Raw(&table_, static_cast<uint32_t>(shape.size()));
    for (const uint64_t extent : shape) Raw(&table_, extent);
    Raw(&table_, ggml_type);
    Raw(&table_, offset);
    ++tensors_;
    return *this;
  }

  // What the header claims; by default the truth.
  GgufBuilder& Claim(uint64_t tensors, uint64_t keys) {
    tensors_ = tensors;
    keys_ = keys;
    return *this;
  }
  GgufBuilder& Version(uint32_t version) {
    version_ = version;
    return *this;
  }

  std::vector<std::byte> Build() const {
    std::vector<std::byte> file;
    for (const char c : {'G', 'G', 'U', 'F'}) Raw(&file, c);
    Raw(&file, version_);
    Raw(&file, tensors_);
    Raw(&file, keys_);
    file.insert(file.end(), metadata_.begin(), metadata_.end());
    file.insert(file.end(), table_.begin(), table_.end());
    file.resize((file.size() + 31) / 32 * 32);
    file.insert(file.end(), data_.begin(), data_.end());
    return file;
  }

 private:
  template <typename T>
  static void Raw(std::vector<std::byte>* out, T value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    out->insert(out->end(), bytes, bytes + sizeof(T));
  }
  static void Put(std::vector<std::byte>* out, const std::string& text) {
    Raw(out, static_cast<uint64_t>(text.size()));
    for (const char c : text) Raw(out, c);
  }
  void Key(const std::string& key, GgufType type) {
    Put(&metadata_, key);
    Raw(&metadata_, static_cast<uint32_t>(type));
    ++keys_;
  }

  uint32_t version_ = 3;
  uint64_t tensors_ = 0;
  uint64_t keys_ = 0;
  std::vector<std::byte> metadata_;
  std::vector<std::byte> table_;
  std::vector<std::byte> data_;
};

// The smallest model that has everything: one layer, 8 wide, two heads, eight tokens.
struct SmallGguf {
  std::string architecture = "llama";
  int layers = 1;

  GgufBuilder Metadata() const {
    GgufBuilder file;
    const std::string a = architecture + ".";
    file.Text("general.architecture", architecture)
        .U32(a + "block_count", layers)
        .U32(a + "context_length", 64)
        .U32(a + "embedding_length", 8)
        .U32(a + "feed_forward_length", 8)
        .U32(a + "attention.head_count", 2)
        .U32(a + "attention.head_count_kv", 1)
        .F32(a + "attention.layer_norm_rms_epsilon", 1e-5f);
    return file;
  }
  static GgufBuilder& AddTokenizer(GgufBuilder* file) {
    return file->Text("tokenizer.ggml.model", "gpt2")
        .Text("tokenizer.ggml.pre", "smollm")
        .Texts("tokenizer.ggml.tokens",
               {"<|endoftext|>", "<|im_end|>", "a", "b", "c", "d", "ab", "e"})
        .I32s("tokenizer.ggml.token_type", {3, 3, 1, 1, 1, 1, 1, 1})
        .Texts("tokenizer.ggml.merges", {"a b"})
        .U32("tokenizer.ggml.eos_token_id", 1)
        .U32("tokenizer.ggml.bos_token_id", 0xffffffffu)
        .Bool("tokenizer.ggml.add_bos_token", 0);
  }
  static GgufBuilder& AddTensors(GgufBuilder* file) {
    return file->Tensor("token_embd.weight", {8, 8}, 0, 256)
        .Tensor("output_norm.weight", {8}, 0, 32)
        .Tensor("blk.0.attn_norm.weight", {8}, 0, 32)
        .Tensor("blk.0.attn_q.weight", {8, 8}, 0, 256)
        .Tensor("blk.0.attn_k.weight", {8, 4}, 0, 128)
        .Tensor("blk.0.attn_v.weight", {8, 4}, 0, 128)
        .Tensor("blk.0.attn_output.weight", {8, 8}, 0, 256)
        .Tensor("blk.0.ffn_norm.weight", {8}, 0, 32)
        .Tensor("blk.0.ffn_gate.weight", {8, 8}, 0, 256)
        .Tensor("blk.0.ffn_up.weight", {8, 8}, 0, 256)
        .Tensor("blk.0.ffn_down.weight", {8, 8}, 0, 256);
  }
  GgufBuilder Whole() const {
    GgufBuilder file = Metadata();
    AddTokenizer(&file);
    AddTensors(&file);
    return file;
  }
};

}  // namespace longhaul
