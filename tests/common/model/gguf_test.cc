// Structure and meaning of GGUF files: a valid one, and everything that a file may lie about.
#include "common/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/model/gguf_model.h"
#include "tests/common/model/gguf_builder.h"

namespace longhaul {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string ErrorOf(const GgufBuilder& builder) {
  const std::vector<std::byte> bytes = builder.Build();
  const auto model = ModelFromGguf(bytes, nullptr, "x.gguf");
  return std::string(model.status().message());
}

TEST(GgufTest, ReadsTheSmallModel) {
  const std::vector<std::byte> bytes = SmallGguf().Whole().Build();
  const auto model = ModelFromGguf(bytes, nullptr, "x.gguf");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->config.head_dim, 4);
  EXPECT_EQ(model->config.vocab, 8);
  EXPECT_EQ(model->config.rope_style, RopeStyle::kInterleaved);
  EXPECT_TRUE(model->config.tied_head);
  EXPECT_EQ(model->weights.head.data, model->weights.embedding.data);
  EXPECT_THAT(model->config.eos_tokens, ElementsAre(0, 1));
  EXPECT_EQ(model->tokenizer.bos_token, -1);
  EXPECT_EQ(model->tokenizer.tokens[6], "ab");
  EXPECT_THAT(model->tokenizer.merges, ElementsAre(testing::Pair("a", "b")));
  EXPECT_EQ(model->weights.layers[0].k.rows, 4);
}

TEST(GgufTest, QwenRotatesHalves) {
  const std::vector<std::byte> bytes = SmallGguf{.architecture = "qwen2"}.Whole().Build();
  const auto model = ModelFromGguf(bytes, nullptr, "x.gguf");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->config.rope_style, RopeStyle::kHalf);
}

TEST(GgufTest, NamesTheFileAndWhatToDo) {
  EXPECT_THAT(ErrorOf(SmallGguf().Whole().Version(2)), HasSubstr("x.gguf: is GGUF version 2"));
  EXPECT_THAT(ErrorOf(SmallGguf().Whole().Version(0x03000000)), HasSubstr("big-endian"));
  EXPECT_THAT(ErrorOf(SmallGguf{.architecture = "gemma"}.Whole()),
              HasSubstr("supported are llama, qwen2 and qwen3"));
}

TEST(GgufTest, CountsBeyondTheFileAreRefusedBeforeAllocation) {
  EXPECT_THAT(ErrorOf(SmallGguf().Whole().Claim(uint64_t{1} << 60, 1)), HasSubstr("claims"));
  EXPECT_THAT(ErrorOf(SmallGguf().Whole().Claim(1, uint64_t{1} << 60)), HasSubstr("claims"));
  for (const GgufType element :
       {GgufType::kString, GgufType::kArray, GgufType::kF64, GgufType::kU8}) {
    GgufBuilder file = SmallGguf().Metadata();
    file.ArrayHeader("list", element, ~uint64_t{0});
    EXPECT_THAT(ErrorOf(file), HasSubstr("claims 18446744073709551615"));
  }
  GgufBuilder file = SmallGguf().Metadata();
  file.ArrayHeader("list", GgufType::kString, 1).Append(~uint64_t{0} - 7);
  EXPECT_THAT(ErrorOf(file), HasSubstr("needs 18446744073709551608 bytes"));
  EXPECT_THAT(ErrorOf(SmallGguf{.layers = 1000}.Whole()), HasSubstr("1000 layers"));
  EXPECT_THAT(ErrorOf(SmallGguf{.layers = 1 << 30}.Whole()), HasSubstr("1 to 1024"));
}

TEST(GgufTest, ArraysNestOnlySoDeep) {
  const auto nested = [](int depth) {
    GgufBuilder file = SmallGguf().Whole();
    file.ArrayHeader("nested", GgufType::kArray, 1);
    for (int i = 0; i < depth; ++i) {
      file.Append(static_cast<uint32_t>(GgufType::kArray)).Append(uint64_t{1});
    }
    file.Append(static_cast<uint32_t>(GgufType::kU8)).Append(uint64_t{1}).Append(uint8_t{0});
    return file;
  };
  EXPECT_EQ(ErrorOf(nested(2)), "");
  EXPECT_THAT(ErrorOf(nested(3)), HasSubstr("nests arrays deeper than 4"));
  EXPECT_THAT(ErrorOf(nested(100000)), HasSubstr("nests arrays deeper than 4"));
}

TEST(GgufTest, KeysAndTensorsOccurOnce) {
  GgufBuilder keys = SmallGguf().Whole();
  keys.U32("llama.block_count", 1);
  EXPECT_THAT(ErrorOf(keys), HasSubstr("\"llama.block_count\" occurs twice"));
  GgufBuilder tensors = SmallGguf().Whole();
  tensors.Tensor("output_norm.weight", {8}, 0, 32);
  EXPECT_THAT(ErrorOf(tensors), HasSubstr("\"output_norm.weight\" occurs twice"));
}

TEST(GgufTest, TypesAreChecked) {
  GgufBuilder unknown = SmallGguf().Metadata();
  unknown.ArrayHeader("list", static_cast<GgufType>(13), 1);
  EXPECT_THAT(ErrorOf(unknown), HasSubstr("value type 13"));
  GgufBuilder truth = SmallGguf().Whole();
  truth.Bool("flag", 2);
  EXPECT_THAT(ErrorOf(truth), HasSubstr("bool with value 2"));
  GgufBuilder text = SmallGguf().Whole();
  text.Text("llama.rope.freq_base", "10000");
  EXPECT_THAT(ErrorOf(text), HasSubstr("of type string; a number is valid"));
  GgufBuilder alignment = SmallGguf().Whole();
  alignment.U32("general.alignment", 48);
  EXPECT_THAT(ErrorOf(alignment), HasSubstr("power of two"));
}

TEST(GgufTest, TensorsLieWithinTheFile) {
  const auto with = [](const std::vector<uint64_t>& shape, uint32_t type, uint64_t offset) {
    GgufBuilder file = SmallGguf().Whole();
    file.TensorAt("extra", shape, type, offset);
    return ErrorOf(file);
  };
  constexpr uint64_t kHuge = uint64_t{1} << 62;
  EXPECT_THAT(with({8}, 0, uint64_t{1} << 20), HasSubstr("truncated"));
  EXPECT_THAT(with({8}, 0, ~uint64_t{31}), HasSubstr("truncated"));
  EXPECT_THAT(with({8}, 0, 4), HasSubstr("multiple of the alignment 32"));
  EXPECT_THAT(with({kHuge, kHuge}, 0, 0), HasSubstr("exceeds 63 bits"));
  EXPECT_THAT(with({kHuge, 4}, 0, 0), HasSubstr("exceeds 63 bits"));
  EXPECT_THAT(with({~uint64_t{0}}, 0, 0), HasSubstr("extent 18446744073709551615"));
  EXPECT_THAT(with({8, 0}, 0, 0), HasSubstr("extent 0"));
  EXPECT_THAT(with({}, 0, 0), HasSubstr("has 0 dimensions"));
  EXPECT_THAT(with({1, 1, 1, 1, 1}, 0, 0), HasSubstr("has 5 dimensions"));
  EXPECT_THAT(with({40}, 8, 0), HasSubstr("multiple of 32"));
  EXPECT_THAT(with({8}, 16, 0), HasSubstr("GGML type 16"));
  EXPECT_THAT(with({8}, 0, 0), HasSubstr("\"extra\" has no place"));
}

TEST(GgufTest, ShapesFollowTheConfiguration) {
  GgufBuilder file = SmallGguf().Metadata();
  SmallGguf::AddTokenizer(&file);
  file.Tensor("token_embd.weight", {16, 8}, 0, 512);
  EXPECT_THAT(ErrorOf(file), HasSubstr("embedding is [8, 16]"));
  GgufBuilder missing = SmallGguf().Metadata();
  SmallGguf::AddTokenizer(&missing);
  EXPECT_THAT(ErrorOf(missing), HasSubstr("1 layers but has only 0 tensors"));
}

TEST(GgufTest, WhatWouldChangeTheArithmeticIsRefused) {
  const auto with_number = [](const std::string& key, uint32_t value) {
    GgufBuilder file = SmallGguf().Whole();
    file.U32(key, value);
    return ErrorOf(file);
  };
  EXPECT_THAT(with_number("llama.expert_count", 8), HasSubstr("mixture of 8 experts"));
  EXPECT_THAT(with_number("llama.attention.sliding_window", 32), HasSubstr("sliding window of 32"));
  EXPECT_EQ(with_number("llama.attention.sliding_window", 64), "");
  EXPECT_THAT(with_number("llama.rope.dimension_count", 2), HasSubstr("rotates 2"));
  EXPECT_THAT(with_number("llama.attention.value_length", 8), HasSubstr("value heads of 8"));
  EXPECT_THAT(with_number("split.count", 2), HasSubstr("gguf-split --merge"));
  EXPECT_THAT(with_number("general.quantization_version", 1), HasSubstr("quantisation version 1"));
  EXPECT_THAT(with_number("llama.rope.freq_base", 0), HasSubstr("RoPE base is 0"));
  GgufBuilder yarn = SmallGguf().Whole();
  yarn.Text("llama.rope.scaling.type", "yarn");
  EXPECT_THAT(ErrorOf(yarn), HasSubstr("RoPE scaling \"yarn\""));
  GgufBuilder linear = SmallGguf().Whole();
  linear.Text("llama.rope.scaling.type", "linear").F32("llama.rope.scaling.factor", -1.0f);
  EXPECT_THAT(ErrorOf(linear), HasSubstr("scaling factor is -1"));
}

TEST(GgufTest, TokenizerFieldsAreChecked) {
  const auto with = [](auto edit) {
    GgufBuilder file = SmallGguf().Metadata();
    file.Text("tokenizer.ggml.model", "gpt2");
    edit(&file);
    SmallGguf::AddTensors(&file);
    return ErrorOf(file);
  };
  const std::vector<std::string> two = {"a", "b"};
  EXPECT_THAT(with([](GgufBuilder* file) {}), HasSubstr("tokenizer.ggml.tokens"));
  EXPECT_THAT(with([&](GgufBuilder* file) { file->Texts("tokenizer.ggml.tokens", two); }),
              HasSubstr("tokenizer.ggml.merges"));
  EXPECT_THAT(with([&](GgufBuilder* file) {
                file->Texts("tokenizer.ggml.tokens", two).I32s("tokenizer.ggml.token_type", {1});
              }),
              HasSubstr("1 elements of int32 for 2 tokens"));
  EXPECT_THAT(with([&](GgufBuilder* file) {
                file->Texts("tokenizer.ggml.tokens", two).I32s("tokenizer.ggml.token_type", {1, 9});
              }),
              HasSubstr("token_type[1] is 9"));
  EXPECT_THAT(with([&](GgufBuilder* file) {
                file->Texts("tokenizer.ggml.tokens", two).Texts("tokenizer.ggml.merges", {"ab"});
              }),
              HasSubstr("merges[0] is \"ab\""));
  EXPECT_THAT(with([&](GgufBuilder* file) {
                file->Texts("tokenizer.ggml.tokens", two)
                    .Texts("tokenizer.ggml.merges", {})
                    .U32("tokenizer.ggml.eos_token_id", 2);
              }),
              HasSubstr("eos_token_id is 2; 0 to 1 is valid"));
  EXPECT_THAT(with([&](GgufBuilder* file) {
                file->Texts("tokenizer.ggml.tokens", std::vector<std::string>(9, "x"))
                    .Texts("tokenizer.ggml.merges", {});
              }),
              HasSubstr("9 tokens but the embedding only 8 rows"));
}

}  // namespace
}  // namespace longhaul
