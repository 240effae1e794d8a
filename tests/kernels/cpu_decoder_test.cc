// The decoder on the CPU backend over little models of every architecture: its logits against plain
// float64, and bit for bit, that chunks, neighbours and threads change nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>

#include "common/model/decoder.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/common/model/tiny_model.h"
#include "tests/kernels/random_data.h"
#include "tests/kernels/reference_decoder.h"

namespace longhaul {
namespace {

std::vector<int32_t> RandomTokens(int64_t count, int64_t vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocab);
  return tokens;
}

// A model on a backend with a pool of its own.
class Running {
 public:
  Running(const ModelFile& model, CpuIsa isa, int threads, int block_tokens = 16) {
    CpuBackendOptions options;
    options.threads = threads;
    options.isa_max = isa;
    backend_ = MakeCpuBackend(options).value();
    decoder_ = Decoder::Create(*backend_, model.config, model.weights).value();
    pool_.layout = {model.config.layers, model.config.kv_heads, model.config.head_dim,
                    block_tokens};
    pool_.blocks = 256;
    memory_ = backend_->Allocate(pool_.blocks * pool_.layout.block_bytes()).value();
    pool_.data = memory_->data();
  }

  struct Part {
    Phase phase;
    const std::vector<int32_t>* tokens;  // of the whole sequence
    int64_t position;
    int64_t count;
    std::vector<BlockId> blocks;
  };
  // Runs one step; log probabilities of all tokens for each decode part, by token.
  std::vector<std::vector<float>> Step(std::vector<Part> parts) {
    Batch batch;
    for (const Phase phase : {Phase::kPrefill, Phase::kDecode}) {
      for (const Part& part : parts) {
        if (part.phase != phase) continue;
        batch.sequences.push_back({phase, batch.rows(), part.count, part.position, part.blocks});
        batch.tokens.insert(batch.tokens.end(), part.tokens->begin() + part.position,
                            part.tokens->begin() + part.position + part.count);
      }
      if (phase == Phase::kPrefill) batch.prefill_rows = batch.rows();
    }
    SamplingParams params;
    params.temperature = 0.0f;
    params.top_logprobs = static_cast<int32_t>(decoder_->config().vocab);
    std::vector<SampleRow> samples(batch.decode_rows());
    for (SampleRow& sample : samples) sample.params = &params;
    layers_.clear();
    auto sampled = decoder_->Run(batch, pool_, absl::MakeSpan(samples),
                                 [&](int layer, DeviceEvent) { layers_.push_back(layer); });
    std::vector<std::vector<float>> logprobs;
    for (const auto& token : sampled.value()) {
      std::vector<float>& row = logprobs.emplace_back(decoder_->config().vocab);
      for (const auto& [id, logprob] : token.value().top_logprobs) row[id] = logprob;
    }
    return logprobs;
  }
  // The prompt in chunks but its last token, then that: its log probabilities.
  std::vector<float> Prompt(const std::vector<int32_t>& tokens, int64_t chunk,
                            const std::vector<BlockId>& blocks) {
    const int64_t last = static_cast<int64_t>(tokens.size()) - 1;
    for (int64_t done = 0; done < last; done += chunk) {
      Step({{Phase::kPrefill, &tokens, done, std::min(chunk, last - done), blocks}});
    }
    return Step({{Phase::kDecode, &tokens, last, 1, blocks}})[0];
  }
  std::vector<BlockId> Blocks(int first, int count) const {
    std::vector<BlockId> blocks(count);
    std::iota(blocks.rbegin(), blocks.rend(), first);
    return blocks;
  }
  // All KV of a sequence, in order of position.
  std::string Kv(const std::vector<BlockId>& blocks) const {
    std::string bytes;
    for (int layer = 0; layer < pool_.layout.layers; ++layer) {
      for (const BlockId block : blocks) {
        bytes.append(reinterpret_cast<const char*>(pool_.data) +
                         pool_.layout.SlabOffset(pool_.blocks, layer, block),
                     pool_.layout.slab_bytes());
      }
    }
    return bytes;
  }
  const std::vector<int>& layers() const { return layers_; }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Decoder> decoder_;
  KvPool pool_;
  std::unique_ptr<DeviceBuffer> memory_;
  std::vector<int> layers_;
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
