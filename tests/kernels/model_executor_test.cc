// ModelExecutor over the CPU backend: order of callbacks, how a plan becomes rows, what happens on
// errors and when it goes.
#include "common/engine/model_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <future>
#include <limits>
#include <numeric>

#include "common/model/backend_rank.h"
#include "common/model/tensor_shard.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/in_process_collective.h"
#include "tests/common/model/tiny_model.h"

namespace longhaul {
namespace {

// By number of ranks.
class ModelExecutorTest : public testing::TestWithParam<int> {
 protected:
  ModelExecutorTest() : model_(MakeTinyModel({})), owner_({.name = "owner"}) {
    MakeRanks(GetParam());
    greedy_ = std::make_shared<SamplingParams>();
    greedy_->temperature = 0.0f;
    greedy_->top_logprobs = 0;
  }
  ~ModelExecutorTest() override {
    OnOwner([&] { executor_.reset(); });
  }

  // last_memory_bytes: all that the last rank may take; 0: what there is.
  void MakeRanks(int width, int64_t last_memory_bytes = 0) {
    OnOwner([&] { executor_.reset(); });
    decoders_.clear();
    ranks_ = std::vector<BackendRank>(width);
    auto collectives = MakeInProcessCollectives(width);
    std::vector<ModelRank> ranks;
    memory_.clear();
    for (int rank = 0; rank < width; ++rank) {
      const bool last = rank + 1 == width;
      ranks_[rank].backend =
          MakeCpuBackend({.threads = 2, .memory_bytes_max = last ? last_memory_bytes : 0}).value();
      if (width > 1) ranks_[rank].collective = std::move(collectives[rank]);
      Backend& backend = *ranks_[rank].backend;
      const TensorShard shard{rank, width};
      const ModelConfig config = ShardConfig(model_.config, shard).value();
      const ModelWeights weights = ShardWeights(model_.config, model_.weights, shard).value();
      decoders_.push_back(
          Decoder::Create(backend, config, weights, {.collective = ranks_[rank].collective.get()})
              .value());
      KvPool pool{{config.layers, config.kv_heads, config.head_dim}, 32, nullptr};
      memory_.push_back(backend.Allocate(pool.blocks * pool.layout.block_bytes()).value());
      pool.data = memory_.back()->data();
      ranks.push_back({&backend, decoders_.back().get(), pool});
    }
    last_pool_ = ranks.back().pool;
    executor_ = std::make_unique<ModelExecutor>(owner_, std::move(ranks));
  }

  void OnOwner(absl::FunctionRef<void()> body) {
    std::promise<void> done;
    owner_.Post([&] {
      body();
      done.set_value();
    });
    done.get_future().wait();
  }

  StepSequence Sequence(SequenceId id, int64_t first, int64_t tokens, bool sample) {
    StepSequence sequence;
    sequence.id = id;
    for (int64_t i = first; i < first + tokens; ++i) {
      sequence.tokens.push_back(static_cast<int32_t>(20 + i * 7 % 200));
    }
    sequence.position = first;
    sequence.blocks.resize(4);
    std::iota(sequence.blocks.begin(), sequence.blocks.end(), static_cast<BlockId>(4 * id));
    sequence.sample = sample;
    if (sample) sequence.sampling = greedy_;
    return sequence;
  }

  // Runs a plan; `layers` gets what layer_done was told before done.
  StepResult Run(std::vector<StepSequence> sequences, std::vector<int>* layers = nullptr) {
    std::promise<StepResult> done;
    owner_.Post([&] {
      StepPlan plan;
      plan.step = ++step_;
      plan.sequences = std::move(sequences);
      executor_->Execute(
          std::move(plan),
          [layers](int layer) {
            if (layers != nullptr) layers->push_back(layer);
          },
          [&](StepResult result) { done.set_value(std::move(result)); });
    });
    return done.get_future().get();
  }

  ModelFile model_;
  ThreadLoop owner_;
  std::vector<BackendRank> ranks_;
  std::vector<std::unique_ptr<Decoder>> decoders_;
  std::vector<std::unique_ptr<DeviceBuffer>> memory_;
  KvPool last_pool_;  // of the last rank
  std::shared_ptr<SamplingParams> greedy_;
  std::unique_ptr<ModelExecutor> executor_;
  uint64_t step_ = 0;
};

TEST_P(ModelExecutorTest, LayersInOrderThenDone) {
  std::vector<int> layers;
  const StepResult result = Run({Sequence(1, 0, 40, false)}, &layers);
  EXPECT_EQ(layers, std::vector<int>({0, 1}));
  EXPECT_EQ(result.step, 1u);
  ASSERT_EQ(result.sequences.size(), 1u);
  EXPECT_EQ(result.sequences[0].id, 1u);
  EXPECT_EQ(result.sequences[0].sampled.token, -1);
  EXPECT_GE(result.compute_us, 0);
}

TEST_P(ModelExecutorTest, AWholePromptInOneSampledStepEqualsTheHandOffsCut) {
  Run({Sequence(1, 0, 49, false)});
  const StepResult cut = Run({Sequence(1, 49, 1, true)});
  // Beside another sequence, in one step, the prompt's tail in it.
  Run({Sequence(2, 0, 30, false)});
  const StepResult whole = Run({Sequence(2, 30, 20, true), Sequence(3, 0, 25, true)});
  ASSERT_EQ(whole.sequences.size(), 2u);
  EXPECT_EQ(whole.sequences[0].id, 2u);
  EXPECT_EQ(whole.sequences[0].sampled.token, cut.sequences[0].sampled.token);
  EXPECT_EQ(whole.sequences[0].sampled.logprob, cut.sequences[0].sampled.logprob);
  EXPECT_GE(whole.sequences[1].sampled.token, 0);
}

TEST_P(ModelExecutorTest, ADamagedCacheEndsItsSequenceOnly) {
  Run({Sequence(1, 0, 20, false), Sequence(2, 0, 20, false)});
  const uint16_t nan = 0x7fc0;
  std::memcpy(last_pool_.data + last_pool_.layout.SlabOffset(last_pool_.blocks, 0, 4), &nan,
              sizeof(nan));
  const StepResult result = Run({Sequence(1, 20, 1, true), Sequence(2, 20, 1, true)});
  EXPECT_EQ(result.sequences[0].status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(result.sequences[0].sampled.token, -1);
  EXPECT_TRUE(result.sequences[1].status.ok());
  EXPECT_GE(result.sequences[1].sampled.token, 0);
}

TEST_P(ModelExecutorTest, AForeignTokenEndsItsSequenceOnly) {
  const StepResult alone = Run({Sequence(2, 0, 20, true)});
  StepSequence foreign = Sequence(1, 0, 5, true);
  foreign.tokens[2] = static_cast<int32_t>(model_.config.vocab);
  const StepResult result = Run({foreign, Sequence(2, 0, 20, true)});
  EXPECT_EQ(result.sequences[0].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.sequences[0].status.message()), testing::HasSubstr("0 to 319"));
  EXPECT_EQ(result.sequences[1].sampled.token, alone.sequences[0].sampled.token);
  foreign.tokens[2] = -1;
  EXPECT_FALSE(Run({foreign}).sequences[0].status.ok());
}

TEST_P(ModelExecutorTest, NoCallbackComesAfterItHasGone) {
  bool called = false;
  OnOwner([&] {
    StepPlan plan;
    plan.sequences = {Sequence(1, 0, 60, false)};
    executor_->Execute(
        std::move(plan), [&](int) { called = true; }, [&](StepResult) { called = true; });
    executor_.reset();
  });
  OnOwner([] {});  // whatever was posted before it went has had its turn
  EXPECT_FALSE(called);
}

// Room for the pool and for a small step, but not for a large one.
TEST_P(ModelExecutorTest, AStepThatOneRankHasNoMemoryForFailsAndTheNextOneRuns) {
  MakeRanks(GetParam(), last_pool_.blocks * last_pool_.layout.block_bytes() + 20'000);
  const StepResult large = Run({Sequence(1, 0, 60, false)});
  EXPECT_EQ(large.sequences[0].status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Run({Sequence(1, 0, 4, false)}).sequences[0].status.ok());
}

INSTANTIATE_TEST_SUITE_P(Ranks, ModelExecutorTest, testing::Values(1, 2, 4),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace longhaul
