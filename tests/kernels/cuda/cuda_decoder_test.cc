// The decoder on the CUDA backend over little models of every architecture: its logits against
// plain float64, and bit for bit, that chunks, neighbours and recorded steps change nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/reference_decoder.h"
#include "tests/kernels/running_decoder.h"

namespace longhaul {
namespace {

class CudaDecoderTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!CudaDeviceAnswers(0).ok()) GTEST_SKIP() << "no CUDA device";
  }
};

std::unique_ptr<Backend> Cuda() { return MakeCudaBackend({.memory_share = 0.5}).value(); }

TinyModelOptions Architecture(int index) {
  TinyModelOptions options;
  options.seed = index + 1;
  options.hidden = 128;
  options.head_dim = 64;
  options.context_tokens_max = 2048;
  switch (index) {
    case 0:  // Llama from GGUF
      options.rope_style = RopeStyle::kInterleaved;
      options.dtype = DType::kQ4_1;
      break;
    case 1:  // Llama 3.1
      options.tied_head = false;
      options.head_dim = 128;
      options.heads = 8;
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
      options.head_dim = 128;
      options.kv_heads = 4;
      break;
    case 4:  // linear scaling and divisors
      options.rope_scaling.kind = RopeScaling::Kind::kLinear;
      options.rope_scaling.factor = 4.0;
      options.rope_divisors = true;
      options.heads = 8;
      options.kv_heads = 1;
      options.dtype = DType::kF16;
      break;
    case 5:  // widths that fill no tile
      options.hidden = 72;
      options.ffn_hidden = 200;
      options.heads = 3;
      options.kv_heads = 3;
      options.vocab = 333;
      break;
  }
  return options;
}
constexpr int kArchitectures = 6;

TEST_F(CudaDecoderTest, LogProbabilitiesAgainstFloat64) {
  for (int index = 0; index < kArchitectures; ++index) {
    const ModelFile model = MakeTinyModel(Architecture(index));
    const std::vector<int32_t> tokens = RandomTokens(60, model.config.vocab, index);
    RunningDecoder running(model, Cuda());
    const std::vector<float> got = running.Prompt(tokens, 33, running.Blocks(3, 4));
    const std::vector<double> logits = ReferenceDecoder(model).Logits(tokens);
    double total = 0;
    for (const double logit : logits) total += std::exp(logit);
    const double mean = std::accumulate(logits.begin(), logits.end(), 0.0) / logits.size();
    double worst = 0;
    double errors = 0;
    double spread = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double error = logits[i] - std::log(total) - got[i];
      worst = std::max(worst, std::abs(error));
      errors += error * error;
      spread += (logits[i] - mean) * (logits[i] - mean);
    }
    const double relative = std::sqrt(errors / spread);
    std::printf("architecture %d: relative error %.4f, worst %.4f\n", index, relative, worst);
    // Weights and whatever passes between kernels are rounded to bf16, 2^-9 on average, some ten
    // times a layer; the little models have no redundancy that would average it out.
    EXPECT_LT(relative, 0.03) << "architecture " << index;
    EXPECT_LT(worst, 0.4) << "architecture " << index;
  }
}

TEST_F(CudaDecoderTest, ChunksChangeNoBit) {
  for (const int index : {0, 1, 5}) {
    const ModelFile model = MakeTinyModel(Architecture(index));
    const std::vector<int32_t> tokens = RandomTokens(1601, model.config.vocab, 5);
    std::string want_kv;
    std::vector<float> want;
    RunningDecoder running(model, Cuda());
    const std::vector<BlockId> blocks = running.Blocks(10, 101);
    for (const int64_t chunk : {1600, 37, 256, 512, 1}) {
      if (chunk == 1 && index != 1) continue;
      const std::vector<float> got = running.Prompt(tokens, chunk, blocks);
      const std::string kv = running.Kv({blocks.begin(), blocks.begin() + 100});
      if (want.empty()) {
        want = got;
        want_kv = kv;
      }
      ASSERT_TRUE(kv == want_kv) << "architecture " << index << ", chunks of " << chunk;
      ASSERT_EQ(got, want) << "architecture " << index << ", chunks of " << chunk;
    }
  }
}

TEST_F(CudaDecoderTest, NeighboursChangeNoBit) {
  const ModelFile model = MakeTinyModel(Architecture(2));
  const std::vector<int32_t> a = RandomTokens(90, model.config.vocab, 1);
  const std::vector<int32_t> b = RandomTokens(50, model.config.vocab, 2);
  const std::vector<int32_t> c = RandomTokens(300, model.config.vocab, 3);
  RunningDecoder alone(model, Cuda());
  const std::vector<float> want_a = alone.Prompt(a, 512, alone.Blocks(0, 6));
  const std::vector<float> want_b = alone.Prompt(b, 512, alone.Blocks(6, 4));
  const std::vector<BlockId> alone_c = alone.Blocks(10, 19);
  alone.Prompt(c, 512, alone_c);

  RunningDecoder together(model, Cuda());
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
  // c's last token was run alone only; the blocks before its block must agree.
  EXPECT_TRUE(together.Kv({blocks_c.begin(), blocks_c.begin() + 18}) ==
              alone.Kv({alone_c.begin(), alone_c.begin() + 18}));
}

// The first step of a shape runs as it is, the second is recorded, the rest are replays.
TEST_F(CudaDecoderTest, RecordedStepsAreTheSame) {
  const ModelFile model = MakeTinyModel(Architecture(1));
  const std::vector<int32_t> tokens = RandomTokens(700, model.config.vocab, 7);
  RunningDecoder recorded(model, Cuda());
  const std::vector<BlockId> blocks = recorded.Blocks(0, 44);
  recorded.Step({{Phase::kPrefill, &tokens, 0, 500, blocks}});
  RunningDecoder fresh(model, Cuda());
  fresh.Step({{Phase::kPrefill, &tokens, 0, 500, blocks}});
  for (int64_t position = 500; position < 700; ++position) {
    const auto got = recorded.Step({{Phase::kDecode, &tokens, position, 1, blocks}});
    // Beside a prefill row of another sequence nothing is recorded.
    const auto want = fresh.Step({{Phase::kPrefill, &tokens, 0, 1, fresh.Blocks(200, 1)},
                                  {Phase::kDecode, &tokens, position, 1, blocks}});
    ASSERT_EQ(got, want) << "position " << position;
  }
}

// A prompt's last chunk and its first sampled row in one step, and an output that is replayed row
// by row in one step: rows that read what their own step stores.
TEST_F(CudaDecoderTest, RowsReadWhatTheirStepStores) {
  const ModelFile model = MakeTinyModel(Architecture(1));
  const std::vector<int32_t> tokens = RandomTokens(641, model.config.vocab, 8);
  RunningDecoder apart(model, Cuda());
  const std::vector<BlockId> blocks = apart.Blocks(0, 41);
  apart.Step({{Phase::kPrefill, &tokens, 0, 620, blocks}});
  std::vector<std::vector<float>> want;
  for (int64_t position = 620; position < 641; ++position) {
    want.push_back(apart.Step({{Phase::kDecode, &tokens, position, 1, blocks}})[0]);
  }
  for (int repeat = 0; repeat < 20; ++repeat) {
    RunningDecoder together(model, Cuda());
    const auto first = together.Step(
        {{Phase::kPrefill, &tokens, 0, 620, blocks}, {Phase::kDecode, &tokens, 620, 1, blocks}});
    ASSERT_EQ(first[0], want[0]);
    std::vector<RunningDecoder::Part> rows;
    for (int64_t position = 621; position < 641; ++position) {
      rows.push_back({Phase::kDecode, &tokens, position, 1, blocks});
    }
    for (int again = 0; again < 3; ++again) {
      const auto got = together.Step(rows);
      for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], want[i + 1]) << "row " << i;
    }
  }
}

TEST_F(CudaDecoderTest, ErrorsSayWhatIsWrong) {
  EXPECT_EQ(MakeCudaBackend({.device = 99}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(MakeCudaBackend({.memory_share = 0.0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto backend = MakeCudaBackend({.memory_share = 0.01}).value();
  const absl::Status status = backend->Allocate(int64_t{1} << 40).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("1099511627776"));
  ModelFile model = MakeTinyModel(Architecture(0));
  KvLayout layout{2, 2, 64, 16};
  EXPECT_TRUE(backend->CheckShapes(model.config, layout).ok());
  layout.block_tokens = 24;
  EXPECT_THAT(std::string(backend->CheckShapes(model.config, layout).message()),
              testing::HasSubstr("KV blocks of 24 tokens; use a multiple of 16"));
  layout.block_tokens = 16;
  model.config.head_dim = 40;
  EXPECT_THAT(std::string(backend->CheckShapes(model.config, layout).message()),
              testing::HasSubstr("heads are 40 wide"));
}

}  // namespace
}  // namespace longhaul
