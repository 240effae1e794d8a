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

#include "kernels/cpu/cpu_backend.h"
#include "tests/common/model/tiny_model.h"

namespace longhaul {
namespace {

class ModelExecutorTest : public testing::Test {
 protected:
  ModelExecutorTest() : model_(MakeTinyModel({})), owner_({.name = "owner"}) {
    backend_ = MakeCpuBackend({.threads = 2}).value();
    decoder_ = Decoder::Create(*backend_, model_.config, model_.weights).value();
    pool_.layout = {model_.config.layers, model_.config.kv_heads, model_.config.head_dim};
    pool_.blocks = 32;
    memory_ = backend_->Allocate(pool_.blocks * pool_.layout.block_bytes()).value();
    pool_.data = memory_->data();
    executor_ = std::make_unique<ModelExecutor>(owner_, *backend_, *decoder_, pool_,
                                                ThreadLoopOptions{.name = "device"});
    greedy_ = std::make_shared<SamplingParams>();
    greedy_->temperature = 0.0f;
    greedy_->top_logprobs = 0;
  }
  ~ModelExecutorTest() override {
    OnOwner([&] { executor_.reset(); });
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
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Decoder> decoder_;
  KvPool pool_;
  std::unique_ptr<DeviceBuffer> memory_;
  std::shared_ptr<SamplingParams> greedy_;
  std::unique_ptr<ModelExecutor> executor_;
  uint64_t step_ = 0;
};

TEST_F(ModelExecutorTest, LayersInOrderThenDone) {
  std::vector<int> layers;
  const StepResult result = Run({Sequence(1, 0, 40, false)}, &layers);
  EXPECT_EQ(layers, std::vector<int>({0, 1}));
  EXPECT_EQ(result.step, 1u);
  ASSERT_EQ(result.sequences.size(), 1u);
  EXPECT_EQ(result.sequences[0].id, 1u);
  EXPECT_EQ(result.sequences[0].sampled.token, -1);
  EXPECT_GE(result.compute_us, 0);
}

TEST_F(ModelExecutorTest, AWholePromptInOneSampledStepEqualsTheHandOffsCut) {
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

TEST_F(ModelExecutorTest, ADamagedCacheEndsItsSequenceOnly) {
  Run({Sequence(1, 0, 20, false), Sequence(2, 0, 20, false)});
  const uint16_t nan = 0x7fc0;
  std::memcpy(pool_.data + pool_.layout.SlabOffset(pool_.blocks, 0, 4), &nan, sizeof(nan));
  const StepResult result = Run({Sequence(1, 20, 1, true), Sequence(2, 20, 1, true)});
  EXPECT_EQ(result.sequences[0].status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(result.sequences[0].sampled.token, -1);
  EXPECT_TRUE(result.sequences[1].status.ok());
  EXPECT_GE(result.sequences[1].sampled.token, 0);
}

TEST_F(ModelExecutorTest, AForeignTokenEndsItsSequenceOnly) {
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

TEST_F(ModelExecutorTest, NoCallbackComesAfterItHasGone) {
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

}  // namespace
}  // namespace longhaul
