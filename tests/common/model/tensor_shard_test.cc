#include "common/model/tensor_shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/model/dequantize.h"
#include "common/model/sharded_kv_pool.h"
#include "tests/common/model/tiny_model.h"

namespace longhaul {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::vector<float> Row(const WeightView& weight, int64_t row) {
  std::vector<float> values(weight.cols);
  DequantizeRow(weight, row, values.data());
  return values;
}

TEST(TensorShardTest, SharesCoverAllOnceAndDifferByOneAtMost) {
  for (const int64_t count : {1, 7, 8, 151936, 32003}) {
    for (const int width : {1, 2, 3, 8}) {
      int64_t next = 0;
      for (int rank = 0; rank < width; ++rank) {
        const ShardRange share = ShareOf(count, {rank, width});
        EXPECT_EQ(share.first, next);
        EXPECT_LE(std::abs(share.count - count / width), 1);
        next = share.end();
      }
      EXPECT_EQ(next, count);
    }
  }
}

TEST(TensorShardTest, MoreRanksThanKeyValueHeadsShareThem) {
  EXPECT_EQ(KvHeadsOf(8, {1, 4}), (ShardRange{2, 2}));
  EXPECT_EQ(KvHeadsOf(2, {0, 8}), (ShardRange{0, 1}));
  EXPECT_EQ(KvHeadsOf(2, {3, 8}), (ShardRange{0, 1}));
  EXPECT_EQ(KvHeadsOf(2, {4, 8}), (ShardRange{1, 1}));
  const ShardedKvPool pool({.layers = 1, .kv_heads = 2, .head_dim = 16}, 4,
                           std::vector<std::byte*>(8));
  EXPECT_EQ(pool.RankOf(0), 0);
  EXPECT_EQ(pool.RankOf(1), 4);
  EXPECT_EQ(pool.Rank(5).layout.kv_heads, 1);
}

// Every value of every weight is on the rank that its row or column belongs to.
TEST(TensorShardTest, ThePartsOfAModelMakeItUp) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kQ4_1, DType::kQ8_0}) {
    TinyModelOptions options;
    options.heads = 8;
    options.kv_heads = 2;
    options.head_dim = 32;
    options.ffn_hidden = 128;
    options.vocab = 323;
    options.qkv_bias = true;
    options.dtype = dtype;
    const ModelFile model = MakeTinyModel(options);
    const ModelConfig& config = model.config;
    const LayerWeights& whole = model.weights.layers[1];
    for (const int width : {1, 2, 4}) {
      int64_t head_row = 0;
      for (int rank = 0; rank < width; ++rank) {
        const TensorShard shard{rank, width};
        const ModelConfig part_config = ShardConfig(config, shard).value();
        EXPECT_EQ(part_config.heads, 8 / width);
        EXPECT_EQ(part_config.kv_heads, width == 1 ? 2 : 1);
        EXPECT_EQ(part_config.ffn_hidden, 128 / width);
        const ModelWeights part = ShardWeights(config, model.weights, shard).value();
        const LayerWeights& layer = part.layers[1];
        const int64_t q_rows = 8 * 32 / width;
        const int64_t kv_first = KvHeadsOf(2, shard).first * 32;
        ASSERT_EQ(layer.q.rows, q_rows);
        EXPECT_EQ(Row(layer.q, 3), Row(whole.q, rank * q_rows + 3));
        EXPECT_EQ(Row(layer.v, 31), Row(whole.v, kv_first + 31));
        EXPECT_EQ(Row(layer.k_bias, 0)[5], Row(whole.k_bias, 0)[kv_first + 5]);
        EXPECT_EQ(Row(layer.up, 7), Row(whole.up, rank * 128 / width + 7));
        for (const auto& [cut, full] : {std::pair(layer.attention_out, whole.attention_out),
                                        std::pair(layer.down, whole.down)}) {
          ASSERT_EQ(cut.rows, full.rows);
          ASSERT_EQ(cut.cols, full.cols / width);
          for (const int64_t row : {int64_t{0}, int64_t{1}, full.rows - 1}) {
            const std::vector<float> all = Row(full, row);
            const auto first = all.begin() + rank * cut.cols;
            EXPECT_EQ(Row(cut, row), std::vector<float>(first, first + cut.cols));
          }
        }
        for (int64_t row = 0; row < part.head.rows; row += 40) {
          EXPECT_EQ(Row(part.head, row), Row(model.weights.head, head_row + row));
        }
        head_row += part.head.rows;
      }
      EXPECT_EQ(head_row, 323);
    }
  }
}

// Why `width` ranks cannot share the model.
std::string Refusal(const TinyModelOptions& options, int width) {
  const ModelFile model = MakeTinyModel(options);
  const absl::Status status =
      ShardWeights(model.config, model.weights, {width - 1, width}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(TensorShardTest, WhatCannotBeCutSaysTheNumbers) {
  TinyModelOptions options;
  options.heads = 6;
  EXPECT_THAT(Refusal(options, 4), AllOf(HasSubstr("6 heads"), HasSubstr("4 ranks")));
  options.kv_heads = 3;
  EXPECT_THAT(Refusal(options, 2), AllOf(HasSubstr("3 key/value heads"), HasSubstr("2 ranks")));
  options.heads = options.kv_heads = 8;
  options.ffn_hidden = 100;
  EXPECT_THAT(Refusal(options, 8), HasSubstr("100 feed-forward columns"));
  // 48 columns are one and a half blocks.
  options.head_dim = 32;
  options.ffn_hidden = 96;
  options.dtype = DType::kQ8_0;
  EXPECT_THAT(Refusal(options, 2), AllOf(HasSubstr("weight down lies in blocks of 32 columns"),
                                         HasSubstr("48 of its 96 columns")));
}

}  // namespace
}  // namespace longhaul
