#include "common/engine/prefill_scheduler.h"

#include <gtest/gtest.h>

#include <vector>

namespace longhaul {
namespace {

constexpr double kTokenUs = 100;

// A cost model of c1 * tokens + c2 * pairs.
CostModel Linear(double pair_us = 0) {
  return CostModel::FromCoefficients({1.0, kTokenUs, pair_us, 1.0, 1.0, 0.0});
}

// Runs chunks back to back on virtual time; returns when each prompt ended.
std::map<SequenceId, double> RunAll(PrefillScheduler& scheduler, const CostModel& cost,
                                    double now_us) {
  std::map<SequenceId, double> ended_us;
  while (const auto chunk = scheduler.Next(static_cast<int64_t>(now_us))) {
    now_us += cost.PrefillUs(chunk->tokens, chunk->position);
    scheduler.Advance(*chunk);
    ended_us[chunk->id] = now_us;
  }
  return ended_us;
}

TEST(PrefillSchedulerTest, AShortPromptOvertakesALongOneAtAChunkBoundary) {
  const CostModel cost = Linear();
  PrefillScheduler scheduler({.chunk_target_us = 50'000, .chunk_tokens_max = 512}, &cost);
  scheduler.Add(1, 0, 100'000, 0);
  const auto first = scheduler.Next(0);
  ASSERT_EQ(first->id, 1u);
  scheduler.Advance(*first);
  const double now_us = cost.PrefillUs(first->tokens, 0);
  scheduler.Add(2, 0, 200, 1'000);  // came while the chunk ran
  const auto next = scheduler.Next(static_cast<int64_t>(now_us));
  EXPECT_EQ(next->id, 2u);
  EXPECT_EQ(next->tokens, 200);
}

TEST(PrefillSchedulerTest, TheLongPromptKeepsItsPlaceAndDoesNotStarve) {
  const CostModel cost = Linear();
  PrefillScheduler scheduler({.chunk_target_us = 50'000, .chunk_tokens_max = 512}, &cost);
  scheduler.Add(1, 0, 20'000, 0);  // 2 s alone
  // Short ones come at 90% of what the worker can do: the long one must still end.
  double now_us = 0, next_arrival_us = 0;
  SequenceId next_id = 2;
  int64_t long_position = 0;
  while (long_position < 20'000 && now_us < 60e6) {
    while (next_arrival_us <= now_us) {
      scheduler.Add(next_id++, 0, 180, static_cast<int64_t>(next_arrival_us));
      next_arrival_us += 20'000;
    }
    const auto chunk = scheduler.Next(static_cast<int64_t>(now_us));
    now_us += cost.PrefillUs(chunk->tokens, chunk->position);
    scheduler.Advance(*chunk);
    if (chunk->id == 1) {
      EXPECT_EQ(chunk->position, long_position) << "the long prompt lost computed tokens";
      long_position = chunk->position + chunk->tokens;
    }
  }
  EXPECT_EQ(long_position, 20'000);
}

TEST(PrefillSchedulerTest, ChunksShrinkAsThePositionGrows) {
  const CostModel cost = Linear(/*pair_us=*/0.05);
  PrefillScheduler scheduler(
      {.chunk_target_us = 100'000, .chunk_tokens_max = 4096, .block_tokens = 16}, &cost);
  scheduler.Add(1, 0, 60'000, 0);
  int64_t before = 1 << 20;
  while (const auto chunk = scheduler.Next(0)) {
    const bool last = chunk->position + chunk->tokens == 60'000;
    EXPECT_LE(chunk->tokens, before);
    if (!last) {
      EXPECT_EQ(chunk->tokens % 16, 0);
    }
    if (!last) {
      EXPECT_LE(cost.PrefillUs(chunk->tokens, chunk->position), 100'000)
          << "at " << chunk->position;
      EXPECT_GT(cost.PrefillUs(chunk->tokens + 16, chunk->position), 100'000)
          << "at " << chunk->position;
    }
    before = chunk->tokens;
    scheduler.Advance(*chunk);
  }
  EXPECT_LT(before, 100);
}

TEST(PrefillSchedulerTest, AChunkThatStartsInsideABlockEndsOnABorder) {
  const CostModel cost = Linear();
  PrefillScheduler scheduler({.chunk_target_us = 3'300, .chunk_tokens_max = 32, .block_tokens = 16},
                             &cost);
  scheduler.Add(1, 5, 100, 0);
  const auto chunk = scheduler.Next(0);
  EXPECT_EQ((chunk->position + chunk->tokens) % 16, 0);
}

TEST(PrefillSchedulerTest, EveryoneIsComputedExactlyOnce) {
  const CostModel cost = Linear(0.001);
  PrefillScheduler scheduler({.chunk_target_us = 20'000, .chunk_tokens_max = 256}, &cost);
  std::map<SequenceId, int64_t> computed;
  for (SequenceId id = 1; id <= 20; ++id) {
    scheduler.Add(id, static_cast<int64_t>(id) * 16, 1000 + static_cast<int64_t>(id) * 300, 0);
    computed[id] = static_cast<int64_t>(id) * 16;
  }
  double now_us = 0;
  while (const auto chunk = scheduler.Next(static_cast<int64_t>(now_us))) {
    ASSERT_EQ(chunk->position, computed[chunk->id]);
    ASSERT_GT(chunk->tokens, 0);
    computed[chunk->id] += chunk->tokens;
    now_us += cost.PrefillUs(chunk->tokens, chunk->position);
    scheduler.Advance(*chunk);
  }
  for (const auto& [id, end] : computed) EXPECT_EQ(end, 1000 + static_cast<int64_t>(id) * 300);
  EXPECT_EQ(scheduler.jobs(), 0);
  EXPECT_EQ(scheduler.queued_us(), 0);
}

TEST(PrefillSchedulerTest, RemovedPromptsAreForgotten) {
  const CostModel cost = Linear();
  PrefillScheduler scheduler({}, &cost);
  scheduler.Add(1, 0, 100, 0);
  scheduler.Remove(1);
  scheduler.Remove(77);
  EXPECT_FALSE(scheduler.Next(0).has_value());
  EXPECT_TRUE(RunAll(scheduler, cost, 0).empty());
}

}  // namespace
}  // namespace longhaul
