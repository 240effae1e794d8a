// Ranks in threads on the CPU backend against one that has the whole model: log probabilities,
// tokens over many steps, that chunks and neighbours change no bit, KV handed from any width to any
// other, and ranks that fail.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/in_process_collective.h"
#include "kv_transfer/transfer_plan.h"
#include "tests/kernels/random_data.h"
#include "tests/kernels/reference_decoder.h"
#include "tests/kernels/running_ranks.h"

namespace longhaul {
namespace {

constexpr int kWidths[] = {1, 2, 4, 8};

// The first backend of a process decides how much oneDNN may use: all there is.
class AllOfOneDnn final : public testing::Environment {
 public:
  void SetUp() override { ASSERT_TRUE(MakeCpuBackend({}).ok()); }
};
const testing::Environment* const kAllOfOneDnn = testing::AddGlobalTestEnvironment(new AllOfOneDnn);

// Models that eight ranks can share.
TinyModelOptions Architecture(int index) {
  TinyModelOptions options;
  options.seed = index + 1;
  options.heads = 8;
  options.kv_heads = 8;
  options.ffn_hidden = 256;
  switch (index) {
    case 0:  // Llama from GGUF; blocks of 32 columns: two heads in one
      options.rope_style = RopeStyle::kInterleaved;
      options.dtype = DType::kQ4_1;
      options.head_dim = 32;
      break;
    case 1:  // Llama 3, grouped: from four ranks on, some hold the same key/value head
      options.tied_head = false;
      options.kv_heads = 2;
      options.dtype = DType::kBF16;
      break;
    case 2:  // Qwen2
      options.qkv_bias = true;
      options.kv_heads = 4;
      options.vocab = 323;  // shares of different sizes
      break;
    case 3:  // Qwen3
      options.qk_norm = true;
      options.head_dim = 32;
      options.dtype = DType::kF16;
      break;
  }
  return options;
}
constexpr int kArchitectures = 4;

class Group : public RunningRanks {
 public:
  Group(const ModelFile& model, int width, CpuIsa isa = CpuIsa::kAvx2)
      : RunningRanks(model, Ranks(width, isa)) {}

 private:
  static std::vector<BackendRank> Ranks(int width, CpuIsa isa) {
    std::vector<BackendRank> ranks(width);
    auto collectives = MakeInProcessCollectives(width);
    for (int rank = 0; rank < width; ++rank) {
      ranks[rank].backend = MakeCpuBackend({.threads = 1, .isa_max = isa}).value();
      if (width > 1) ranks[rank].collective = std::move(collectives[rank]);
    }
    return ranks;
  }
};

class TensorParallelTest : public testing::TestWithParam<CpuIsa> {};

// What one rank is held to (cpu_decoder_test.cc): sums in another order differ by less than that.
TEST_P(TensorParallelTest, LogProbabilitiesAgainstFloat64) {
  for (int index = 0; index < kArchitectures; ++index) {
    const ModelFile model = MakeTinyModel(Architecture(index));
    const std::vector<int32_t> tokens = RandomTokens(60, model.config.vocab, index);
    const std::vector<double> logits = ReferenceDecoder(model).Logits(tokens);
    double total = 0;
    for (const double logit : logits) total += std::exp(logit);
    for (const int width : kWidths) {
      Group group(model, width, GetParam());
      const std::vector<float> got = group.Prompt(tokens, 33, group.Blocks(3, 4));
      double worst = 0;
      for (size_t i = 0; i < logits.size(); ++i) {
        worst = std::max(worst, std::abs(logits[i] - std::log(total) - double{got[i]}));
      }
      EXPECT_LT(worst, GetParam() >= CpuIsa::kAvx512Bf16 ? 0.15 : 0.01)
          << "architecture " << index << " on " << width << " ranks";
    }
  }
}

TEST_P(TensorParallelTest, ChunksAndNeighboursChangeNoBit) {
  const ModelFile model = MakeTinyModel(Architecture(1));
  const std::vector<int32_t> tokens = RandomTokens(301, model.config.vocab, 5);
  const std::vector<int32_t> other = RandomTokens(50, model.config.vocab, 6);
  for (const int width : {2, 4}) {
    Group group(model, width, GetParam());
    const std::vector<BlockId> blocks = group.Blocks(10, 19);
    const std::vector<float> want = group.Prompt(tokens, 300, blocks);
    const std::vector<std::string> want_kv = group.Kv(blocks);
    for (const int64_t chunk : {37, 128}) {
      EXPECT_EQ(group.Prompt(tokens, chunk, blocks), want) << width << " ranks, " << chunk;
      EXPECT_EQ(group.Kv(blocks), want_kv) << width << " ranks, " << chunk;
    }
    const std::vector<BlockId> other_blocks = group.Blocks(100, 4);
    const std::vector<float> beside = group.Run([&](RunningDecoder& rank) {
      rank.Step({{Phase::kPrefill, &other, 0, 30, other_blocks},
                 {Phase::kPrefill, &tokens, 0, 300, blocks}});
      return rank.Step({{Phase::kPrefill, &other, 30, 19, other_blocks},
                        {Phase::kDecode, &tokens, 300, 1, blocks}});
    })[0];
    EXPECT_EQ(beside, want) << width << " ranks";
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, TensorParallelTest, testing::ValuesIn(LevelsHere()),
                         [](const auto& info) { return std::string(CpuIsaName(info.param)); });

// The prompt's KV goes from ranks of one width to ranks of another as the wire takes it; the tokens
// that follow are those of one rank that did all. On the level where all is float32.
TEST(KvReshardingTest, AnyWidthsDecodeWhatOneRankWouldSay) {
  constexpr int kTokens = 40;
  for (const int index : {0, 1, 2}) {
    const ModelFile model = MakeTinyModel(Architecture(index));
    const std::vector<int32_t> prompt = RandomTokens(75, model.config.vocab, index + 40);
    Group one(model, 1);
    const std::vector<BlockId> alone = one.Blocks(0, 8);
    one.Prompt(prompt, 512, alone);
    const std::vector<int32_t> want = one.Generate(prompt, kTokens, alone);
    for (const int from_width : kWidths) {
      Group from(model, from_width);
      const std::vector<BlockId> from_blocks = from.Blocks(7, 8);
      from.Prompt(prompt, 32, from_blocks);
      for (const int to_width : kWidths) {
        Group to(model, to_width);
        const std::vector<BlockId> to_blocks = {30, 31, 5, 6, 7, 90, 2, 11};
        const ShardedKvPool source = from.pool();
        const ShardedKvPool target = to.pool();
        const TransferPlan plan(source.layout, to_width, 0, 74, 80);
        for (int layer = 0; layer < plan.layers(); ++layer) {
          for (int part = 0; part < plan.parts(); ++part) {
            std::string message;
            const auto sent = absl::MakeConstSpan(from_blocks).first(5);
            for (const PoolRange& run : HeadRanges(source, layer, plan.HeadsOf(part), sent)) {
              message.append(reinterpret_cast<char*>(source.ranks[run.rank] + run.offset),
                             run.bytes);
            }
            ASSERT_EQ(static_cast<int64_t>(message.size()), plan.MessageBytes(0));
            const char* next = message.data();
            const auto taken = absl::MakeConstSpan(to_blocks).first(5);
            for (const PoolRange& run : RankRanges(target, layer, part, taken)) {
              std::memcpy(target.ranks[run.rank] + run.offset, next, run.bytes);
              next += run.bytes;
            }
          }
        }
        EXPECT_EQ(to.Generate(prompt, kTokens, to_blocks), want)
            << "architecture " << index << ", " << from_width << " to " << to_width << " ranks";
      }
    }
  }
}

// Rank 1 takes part in the step's beginning and in its first sum, and is gone.
TEST(RankFailureTest, ARankThatDiesInAStepEndsItOnAll) {
  const ModelFile model = MakeTinyModel(Architecture(0));
  const std::vector<int32_t> tokens = RandomTokens(100, model.config.vocab, 1);
  Group group(model, 4);
  const std::vector<BlockId> blocks = group.Blocks(0, 7);
  group.Prompt(tokens, 64, blocks);
  const auto start = std::chrono::steady_clock::now();
  std::vector<absl::Status> ends(4);
  std::vector<std::thread> threads;
  for (const int rank : {0, 2, 3}) {
    threads.emplace_back([&, rank] {
      ends[rank] = group.rank(rank).TryStep({{Phase::kPrefill, &tokens, 0, 99, blocks}}).status();
    });
  }
  Collective& dying = group.collective(1);
  EXPECT_TRUE(dying.Agree(absl::OkStatus()).ok());
  std::vector<float> sum(99 * model.config.hidden);
  dying.AllReduce({sum.data(), 99, model.config.hidden});
  dying.Abort(absl::InternalError("rank 1 has lost its device"));
  for (std::thread& thread : threads) thread.join();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
  for (const int rank : {0, 2, 3}) {
    EXPECT_EQ(ends[rank].code(), absl::StatusCode::kAborted);
    EXPECT_THAT(std::string(ends[rank].message()),
                testing::HasSubstr("rank 1 has lost its device"));
  }
}

}  // namespace
}  // namespace longhaul
