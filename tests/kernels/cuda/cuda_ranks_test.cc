// Ranks on GPUs, joined by NCCL: one says what a decoder without a group says, bit for bit, in
// steps that are recorded, too; two are held to what one is held to. Skipped where there are not
// enough.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/reference_decoder.h"
#include "tests/kernels/running_ranks.h"

namespace longhaul {
namespace {

ModelFile Model(bool qwen) {
  TinyModelOptions options;
  options.hidden = 128;
  options.head_dim = 64;
  options.kv_heads = qwen ? 2 : 4;
  options.tied_head = !qwen;
  options.qkv_bias = qwen;
  options.qk_norm = qwen;
  options.dtype = qwen ? DType::kBF16 : DType::kF32;
  options.context_tokens_max = 2048;
  return MakeTinyModel(options);
}

class CudaRanksTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (!CudaDeviceAnswers(GetParam() - 1).ok()) GTEST_SKIP() << "not enough CUDA devices";
  }
  std::vector<BackendRank> Ranks() const {
    std::vector<int> devices(GetParam());
    std::iota(devices.begin(), devices.end(), 0);
    return MakeCudaRanks({.memory_share = 0.2}, devices).value();
  }
};

// The bounds of cuda_decoder_test.cc.
TEST_P(CudaRanksTest, LogProbabilitiesAgainstFloat64) {
  for (const bool qwen : {false, true}) {
    const ModelFile model = Model(qwen);
    const std::vector<int32_t> tokens = RandomTokens(60, model.config.vocab, 3);
    RunningRanks ranks(model, Ranks());
    const std::vector<float> got = ranks.Prompt(tokens, 33, ranks.Blocks(3, 4));
    const std::vector<double> logits = ReferenceDecoder(model).Logits(tokens);
    double total = 0;
    for (const double logit : logits) total += std::exp(logit);
    double worst = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      worst = std::max(worst, std::abs(logits[i] - std::log(total) - double{got[i]}));
    }
    EXPECT_LT(worst, 0.4) << "qwen: " << qwen;
  }
}

TEST_P(CudaRanksTest, ChunksChangeNoBit) {
  const ModelFile model = Model(true);
  const std::vector<int32_t> tokens = RandomTokens(801, model.config.vocab, 5);
  RunningRanks ranks(model, Ranks());
  const std::vector<BlockId> blocks = ranks.Blocks(10, 51);
  const std::vector<float> want = ranks.Prompt(tokens, 800, blocks);
  const std::vector<std::string> want_kv = ranks.Kv(blocks);
  for (const int64_t chunk : {37, 256}) {
    EXPECT_EQ(ranks.Prompt(tokens, chunk, blocks), want) << chunk;
    EXPECT_EQ(ranks.Kv(blocks), want_kv) << chunk;
  }
}

// Recorded steps hold NCCL's communicators, whose end waits for them.
TEST_P(CudaRanksTest, AGroupWithRecordedStepsEndsAtOnce) {
  const ModelFile model = Model(false);
  const std::vector<int32_t> prompt = RandomTokens(100, model.config.vocab, 7);
  RunningRanks ranks(model, Ranks());
  const std::vector<BlockId> blocks = ranks.Blocks(0, 20);
  ranks.Prompt(prompt, 64, blocks);
  ranks.Generate(prompt, 8, blocks);
  const auto start = std::chrono::steady_clock::now();
  ranks.collective(0).Abort(absl::InternalError("a test's whim"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
  for (int rank = 0; rank < GetParam(); ++rank) {
    EXPECT_EQ(ranks.collective(rank).status().code(), absl::StatusCode::kAborted);
  }
}

INSTANTIATE_TEST_SUITE_P(Widths, CudaRanksTest, testing::Values(1, 2),
                         testing::PrintToStringParamName());

TEST(CudaRankTest, AGroupOfOneIsNoGroupBitForBit) {
  if (!CudaDeviceAnswers(0).ok()) GTEST_SKIP() << "no CUDA device";
  for (const bool qwen : {false, true}) {
    const ModelFile model = Model(qwen);
    const std::vector<int32_t> prompt = RandomTokens(200, model.config.vocab, 9);
    std::vector<BackendRank> solo(1);
    solo[0].backend = MakeCudaBackend({.memory_share = 0.2}).value();
    RunningRanks alone(model, std::move(solo));
    RunningRanks group(model, MakeCudaRanks({.memory_share = 0.2}, {0}).value());
    const std::vector<BlockId> blocks = alone.Blocks(0, 20);
    EXPECT_EQ(group.Prompt(prompt, 64, blocks), alone.Prompt(prompt, 64, blocks));
    EXPECT_EQ(group.Generate(prompt, 60, blocks), alone.Generate(prompt, 60, blocks));
    EXPECT_EQ(group.Kv(blocks), alone.Kv(blocks));
  }
}

}  // namespace
}  // namespace longhaul
