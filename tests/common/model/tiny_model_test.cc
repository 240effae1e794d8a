#include "tests/common/model/tiny_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/model/dequantize.h"

namespace longhaul {
namespace {

TEST(TinyModelTest, SameSeedSameDigestOtherSeedAnother) {
  TinyModelOptions options;
  const Hash128 first = MakeTinyModel(options).digest;
  EXPECT_EQ(first, MakeTinyModel(options).digest);
  options.seed = 2;
  EXPECT_NE(first, MakeTinyModel(options).digest);
}

TEST(TinyModelTest, EveryTypeGivesWeightsOfTheSameSize) {
  for (const DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1,
        DType::kQ5_0, DType::kQ5_1, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    TinyModelOptions options;
    options.dtype = dtype;
    options.hidden = 256;
    options.head_dim = 64;
    options.ffn_hidden = 256;
    options.layers = 1;
    const ModelFile model = MakeTinyModel(options);
    std::vector<float> row(256);
    float largest = 0;
    for (int i = 0; i < 4; ++i) {
      DequantizeRow(model.weights.embedding, i, row.data());
      for (const float value : row) {
        ASSERT_TRUE(std::isfinite(value));
        largest = std::max(largest, std::fabs(value));
      }
    }
    EXPECT_GT(largest, 0.3f) << DTypeName(dtype);
    EXPECT_LT(largest, 1.3f) << DTypeName(dtype);
  }
}

TEST(TinyModelTest, ShapesFollowTheOptions) {
  TinyModelOptions options;
  options.qkv_bias = true;
  options.qk_norm = true;
  options.tied_head = false;
  options.rope_divisors = true;
  const ModelFile model = MakeTinyModel(options);
  EXPECT_TRUE(model.weights.layers[1].k_bias.present());
  EXPECT_TRUE(model.weights.layers[1].k_norm.present());
  EXPECT_NE(model.weights.head.data, model.weights.embedding.data);
  EXPECT_EQ(model.config.rope_freq_divisors.size(), 8u);
  EXPECT_EQ(model.tokenizer.tokens.size(), static_cast<size_t>(kTinyModelTokens));
  EXPECT_THAT(model.config.eos_tokens, testing::ElementsAre(0, 2));
}

}  // namespace
}  // namespace longhaul
