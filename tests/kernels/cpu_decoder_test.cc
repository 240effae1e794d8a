// The decoder on the CPU backend over little models of every architecture: its logits against plain
// float64, and bit for bit, that chunks, neighbours and threads change nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/cpu/cpu_backend.h"
#include "tests/common/model/tiny_model.h"
#include "tests/kernels/random_data.h"
#include "tests/kernels/reference_decoder.h"
#include "tests/kernels/running_decoder.h"

namespace longhaul {
namespace {

class Running : public RunningDecoder {
 public:
  Running(const ModelFile& model, CpuIsa isa, int threads)
      : RunningDecoder(model, MakeCpuBackend({.threads = threads, .isa_max = isa}).value()) {}
};

TinyModelOptions Architecture(int index) {
  TinyModelOptions options;
  options.seed = index + 1;
  switch (index) {
    case 0:  // Llama from GGUF
      options.rope_style = RopeStyle::kInterleaved;
      options.dtype = DType::kQ4_1;
      break;
    case 1:  // Llama 3.1
      options.tied_head = false;
      options.rope_scaling.kind = RopeScaling::Kind::kLlama3;
      options.rope_scaling.factor = 8.0;
      options.rope_scaling.original_context_tokens = 32;
      options.dtype = DType::kBF16;
      break;
    case 2:  // Qwen2
      options.qkv_bias = true;
      options.heads = 6;
      options.dtype = DType::kQ8_0;
      break;
    case 3:  // Qwen3
      options.qk_norm = true;
      options.head_dim = 32;
      break;
    case 4:  // linear scaling and divisors
      options.rope_scaling.kind = RopeScaling::Kind::kLinear;
      options.rope_scaling.factor = 4.0;
      options.rope_divisors = true;
      options.dtype = DType::kF16;
      break;
  }
  return options;
}

class CpuDecoderTest : public testing::TestWithParam<CpuIsa> {};

TEST_P(CpuDecoderTest, LogProbabilitiesAgainstFloat64) {
  for (int index = 0; index < 5; ++index) {
    const ModelFile model = MakeTinyModel(Architecture(index));
    const std::vector<int32_t> tokens = RandomTokens(60, model.config.vocab, index);
    Running running(model, GetParam(), 2);
    const std::vector<float> got = running.Prompt(tokens, 33, running.Blocks(3, 4));
    const std::vector<double> logits = ReferenceDecoder(model).Logits(tokens);
    double total = 0;
    for (const double logit : logits) total += std::exp(logit);
    double worst = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      worst = std::max(worst, std::abs(logits[i] - std::log(total) - got[i]));
    }
    // bf16 operands in prefill on the higher levels; below, a key may round the other way.
    EXPECT_LT(worst, GetParam() >= CpuIsa::kAvx512Bf16 ? 0.15 : 0.01) << "architecture " << index;
  }
}

TEST_P(CpuDecoderTest, ChunksAndThreadsChangeNoBit) {
  TinyModelOptions shape = Architecture(0);
  shape.context_tokens_max = 1200;
  const ModelFile model = MakeTinyModel(shape);
  const std::vector<int32_t> tokens = RandomTokens(1001, model.config.vocab, 5);
  std::string want_kv;
  std::vector<float> want;
  for (const int threads : {1, 2, 3}) {
    Running running(model, GetParam(), threads);
    const std::vector<BlockId> blocks = running.Blocks(10, 63);
    for (const int64_t chunk : {1000, 37, 256, 512}) {
      const std::vector<float> got = running.Prompt(tokens, chunk, blocks);
      const std::string kv = running.Kv(blocks);
      if (want.empty()) {
        want = got;
        want_kv = kv;
      }
      // The last block holds positions that were never stored.
      ASSERT_EQ(std::memcmp(kv.data(), want_kv.data(), kv.size()), 0)
          << threads << " threads, chunks of " << chunk;
      ASSERT_EQ(got, want) << threads << " threads, chunks of " << chunk;
    }
  }
}

TEST_P(CpuDecoderTest, NeighboursChangeNoBit) {
  const ModelFile model = MakeTinyModel(Architecture(2));
  const std::vector<int32_t> a = RandomTokens(90, model.config.vocab, 1);
  const std::vector<int32_t> b = RandomTokens(50, model.config.vocab, 2);
  const std::vector<int32_t> c = RandomTokens(300, model.config.vocab, 3);
  Running alone(model, GetParam(), 2);
  const std::vector<float> want_a = alone.Prompt(a, 512, alone.Blocks(0, 6));
  const std::vector<float> want_b = alone.Prompt(b, 512, alone.Blocks(6, 4));
  const std::vector<BlockId> alone_c = alone.Blocks(10, 19);
  alone.Prompt(c, 512, alone_c);

  Running together(model, GetParam(), 2);
  const std::vector<BlockId> blocks_a = together.Blocks(100, 6);
  const std::vector<BlockId> blocks_b = together.Blocks(40, 4);
  const std::vector<BlockId> blocks_c = together.Blocks(70, 19);
  together.Step({{Phase::kPrefill, &a, 0, 89, blocks_a}, {Phase::kPrefill, &b, 0, 20, blocks_b}});
  together.Step({{Phase::kPrefill, &c, 0, 100, blocks_c}, {Phase::kPrefill, &b, 20, 29, blocks_b}});
  const auto got = together.Step({{Phase::kDecode, &a, 89, 1, blocks_a},
                                  {Phase::kPrefill, &c, 100, 199, blocks_c},
                                  {Phase::kDecode, &b, 49, 1, blocks_b}});
  EXPECT_EQ(got[0], want_a);
  EXPECT_EQ(got[1], want_b);
  EXPECT_EQ(together.layers(), std::vector<int>({0, 1}));
  // c's last token was run alone only; the blocks before its block must agree.
  EXPECT_EQ(together.Kv({blocks_c.begin(), blocks_c.begin() + 18}),
            alone.Kv({alone_c.begin(), alone_c.begin() + 18}));
}

TEST(CpuBackendTest, ErrorsSayWhatIsWrong) {
  CpuBackendOptions options;
  options.threads = 0;
  EXPECT_EQ(MakeCpuBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.threads = 1;
  options.memory_bytes_max = 1000;
  const auto backend = MakeCpuBackend(options).value();
  const absl::Status status = backend->Allocate(2000).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("2000"));
  const auto small = backend->Allocate(600);
  EXPECT_TRUE(small.ok());
  EXPECT_EQ(backend->capacity_bytes(), 400);

  ModelFile model = MakeTinyModel({});
  KvLayout layout{2, 2, 16, 16};
  EXPECT_TRUE(backend->CheckShapes(model.config, layout).ok());
  layout.block_tokens = 24;
  EXPECT_THAT(std::string(backend->CheckShapes(model.config, layout).message()),
              testing::HasSubstr("KV blocks of 24 tokens; use a multiple of 16"));
  layout.block_tokens = 16;
  model.config.head_dim = 40;
  EXPECT_THAT(std::string(backend->CheckShapes(model.config, layout).message()),
              testing::HasSubstr("heads are 40 wide"));
  model.config.head_dim = 16;
  model.weights.layers[1].up.rows -= 1;
  const absl::Status shape = Decoder::Create(*backend, model.config, model.weights).status();
  EXPECT_EQ(shape.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.message()), testing::HasSubstr("layer 1: weight up is [95, 64]"));
}

INSTANTIATE_TEST_SUITE_P(Levels, CpuDecoderTest, testing::ValuesIn(LevelsHere()),
                         [](const auto& info) { return std::string(CpuIsaName(info.param)); });

}  // namespace
}  // namespace longhaul
