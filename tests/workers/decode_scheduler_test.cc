// Prompts that are computed within decode steps: how much of them a step gets, and whose.
#include "decode_worker/decode_scheduler.h"

#include <gtest/gtest.h>

#include <optional>

namespace longhaul {
namespace {

constexpr double kTokenUs = 100;
constexpr double kRowUs = 1'000;
constexpr int kBlockTokens = 16;

class LocalPromptsTest : public ::testing::Test {
 protected:
  // `tokens` of prompt, to be computed here.
  void AddPrompt(SequenceId id, int64_t tokens, int64_t now_us = 0) {
    DecodeRequest request;
    request.tokens.assign(tokens, static_cast<int32_t>(id));
    request.prompt_tokens = tokens;
    request.output_tokens_max = 1'000;
    request.sampling = std::make_shared<SamplingParams>();
    ASSERT_TRUE(scheduler_.Add(id, std::move(request)).ok());
    const std::optional<DecodeScheduler::Admission> admission = scheduler_.AdmitNext();
    ASSERT_TRUE(admission.has_value());
    if (admission->fill_end > admission->cached_tokens) scheduler_.FillLocally(id, now_us);
  }
  // A prompt of one token runs at once.
  void AddRunning(int sequences) {
    for (int i = 0; i < sequences; ++i) AddPrompt(next_running_++, 1);
  }
  // Runs one step; the chunk in it.
  std::optional<StepSequence> Step(int64_t now_us = 0) {
    const StepPlan plan = scheduler_.Plan(now_us);
    StepResult result;
    result.step = plan.step;
    std::optional<StepSequence> chunk;
    for (const StepSequence& sequence : plan.sequences) {
      if (!sequence.sample) {
        EXPECT_FALSE(chunk.has_value()) << "two chunks in a step";
        chunk = sequence;
      }
      result.sequences.push_back({.id = sequence.id, .sampled = {}, .status = {}});
    }
    scheduler_.Commit(result);
    return chunk;
  }

  BlockManager blocks_{4096, kBlockTokens};
  CostModel cost_ = CostModel::FromCoefficients({1.0, kTokenUs, 0.0, 1.0, kRowUs, 0.0});
  DecodeScheduler scheduler_{{.context_tokens_max = 100'000,
                              .step_target_us = 20'000,
                              .prefill = {.chunk_target_us = 50'000}},
                             &blocks_,
                             &cost_};
  SequenceId next_running_ = 1;
};

TEST_F(LocalPromptsTest, BesideNobodyAChunkTakesItsOwnTarget) {
  AddPrompt(100, 5'000);
  EXPECT_EQ(Step()->tokens.size(), 496u);  // 50 ms, in whole blocks
}

TEST_F(LocalPromptsTest, BesideRunningSequencesAStepTakesItsTarget) {
  AddRunning(4);
  AddPrompt(100, 5'000);
  for (int64_t done = 0; done < 4'992; done += 144) {
    const auto chunk = Step();
    ASSERT_TRUE(chunk.has_value());
    EXPECT_EQ(chunk->position, done);
    // 20 ms, less 4 for the running ones, in whole blocks.
    EXPECT_EQ(static_cast<int64_t>(chunk->tokens.size()), std::min<int64_t>(144, 4'999 - done));
  }
}

TEST_F(LocalPromptsTest, WhereRunningSequencesLeaveNothingAPromptStillGetsABlock) {
  AddRunning(30);
  AddPrompt(100, 5'000);
  EXPECT_EQ(Step()->tokens.size(), static_cast<size_t>(kBlockTokens));
}

TEST_F(LocalPromptsTest, TheShareForPromptsIsWhatRunningSequencesLeave) {
  EXPECT_EQ(scheduler_.prompt_share(), 1);
  AddRunning(5);
  EXPECT_NEAR(scheduler_.prompt_share(), 0.75, 0.001);
  AddRunning(25);
  EXPECT_EQ(scheduler_.prompt_share(), 0);
}

TEST_F(LocalPromptsTest, AShortPromptOvertakesALongOneAtTheNextStep) {
  AddRunning(4);
  AddPrompt(100, 50'000);
  EXPECT_EQ(Step(0)->id, 100u);
  AddPrompt(101, 101, 20'000);
  EXPECT_EQ(Step(30'000)->id, 101u);
  EXPECT_EQ(scheduler_.running(), 5);
  EXPECT_EQ(Step(40'000)->id, 100u);
}

TEST_F(LocalPromptsTest, ALeavingPromptTakesItsChunksWithIt) {
  AddPrompt(100, 5'000);
  ASSERT_FALSE(scheduler_.Plan(0).sequences.empty());  // under way
  scheduler_.Remove(100);
  EXPECT_EQ(scheduler_.sequences(), 1) << "its blocks are written still";
  scheduler_.Commit({1, {{100, {}, {}}}, 0});
  EXPECT_EQ(scheduler_.sequences(), 0);
  EXPECT_EQ(blocks_.live(), 0);
  EXPECT_TRUE(scheduler_.Plan(0).sequences.empty());
}

TEST_F(LocalPromptsTest, AFailedChunkEndsItsPrompt) {
  AddPrompt(100, 5'000);
  ASSERT_FALSE(scheduler_.Plan(0).sequences.empty());
  const auto outputs = scheduler_.Commit({1, {{100, {}, absl::ResourceExhaustedError("full")}}, 0});
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_TRUE(outputs[0].finished);
  EXPECT_TRUE(scheduler_.Plan(0).sequences.empty());
  EXPECT_EQ(blocks_.live(), 0);
}

}  // namespace
}  // namespace longhaul
