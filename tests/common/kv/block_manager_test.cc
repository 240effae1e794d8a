#include "common/kv/block_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>

namespace longhaul {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int32_t> Tokens(int count, int32_t first = 0) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<BlockId> Take(BlockManager& manager, int64_t count) {
  std::vector<BlockId> blocks;
  EXPECT_TRUE(manager.Allocate(count, &blocks));
  return blocks;
}

TEST(BlockManagerTest, AllocatesNeighboursAndAllOrNone) {
  BlockManager manager(10, 4);
  EXPECT_THAT(Take(manager, 3), ElementsAre(0, 1, 2));
  const std::vector<BlockId> middle = Take(manager, 2);
  EXPECT_THAT(Take(manager, 4), ElementsAre(5, 6, 7, 8));
  manager.Release(middle);
  std::vector<BlockId> blocks;
  EXPECT_FALSE(manager.Allocate(4, &blocks));
  EXPECT_THAT(blocks, IsEmpty());
  EXPECT_EQ(manager.free(), 3);
  // A run that fits is preferred to a lower one that does not.
  EXPECT_THAT(Take(manager, 2), ElementsAre(3, 4));
}

TEST(BlockManagerTest, MatchesTheLongestPublishedPrefixInWholeBlocks) {
  BlockManager manager(10, 4);
  const std::vector<int32_t> tokens = Tokens(14);
  std::vector<BlockId> blocks = Take(manager, 4);
  EXPECT_EQ(manager.Publish(tokens, blocks, 0, 0), 3);
  manager.Release(blocks);
  EXPECT_EQ(manager.cached(), 3);
  EXPECT_EQ(manager.live(), 0);

  EXPECT_THAT(manager.Match(tokens, 14, 0), ElementsAre(blocks[0], blocks[1], blocks[2]));
  EXPECT_EQ(manager.live(), 3);
  manager.Release(absl::MakeConstSpan(blocks).first(3));
  EXPECT_THAT(manager.Match(tokens, 11, 0), ElementsAre(blocks[0], blocks[1]));
  std::vector<int32_t> other = tokens;
  other[5] = 99;
  EXPECT_THAT(manager.Match(other, 14, 0), ElementsAre(blocks[0]));
  EXPECT_THAT(manager.Match(tokens, 14, /*salt=*/1), IsEmpty());
}

TEST(BlockManagerTest, ABlockIsNamedByAllTokensBeforeIt) {
  BlockManager manager(10, 4);
  const std::vector<BlockId> blocks = Take(manager, 2);
  manager.Publish(Tokens(8), blocks, 0, 0);
  // The second block's own tokens, at the start: not a prefix.
  EXPECT_THAT(manager.Match(Tokens(4, 4), 4, 0), IsEmpty());
}

TEST(BlockManagerTest, EvictsTheLeastRecentlyReleasedTailFirst) {
  BlockManager manager(4, 4);
  const std::vector<BlockId> first = Take(manager, 2), second = Take(manager, 2);
  manager.Publish(Tokens(8), first, 0, 0);
  manager.Publish(Tokens(8, 100), second, 0, 0);
  manager.Release(first);
  manager.Release(second);
  EXPECT_EQ(manager.available(), 4);
  Take(manager, 1);
  EXPECT_THAT(manager.Match(Tokens(8), 8, 0), ElementsAre(first[0]));
  EXPECT_THAT(manager.Match(Tokens(8, 100), 8, 0), ElementsAre(second[0], second[1]));
}

TEST(BlockManagerTest, PublishingGrowsWithTheTokensAndKeepsTwinsApart) {
  BlockManager manager(10, 4);
  const std::vector<BlockId> one = Take(manager, 3), twin = Take(manager, 3);
  EXPECT_EQ(manager.Publish(Tokens(5), one, 0, 0), 1);
  EXPECT_EQ(manager.Publish(Tokens(12), one, 1, 0), 3);
  EXPECT_EQ(manager.Publish(Tokens(12), twin, 0, 0), 3);
  manager.Release(twin);  // unnamed copies are free at once
  EXPECT_EQ(manager.cached(), 0);
  manager.Release(one);
  EXPECT_EQ(manager.cached(), 3);
  EXPECT_THAT(manager.Match(Tokens(12), 12, 0), ElementsAre(one[0], one[1], one[2]));
}

TEST(BlockManagerTest, DropCacheForgetsNamesButNotOwners) {
  BlockManager manager(4, 4);
  const std::vector<BlockId> live = Take(manager, 1), idle = Take(manager, 1);
  manager.Publish(Tokens(4), live, 0, 0);
  manager.Publish(Tokens(4, 50), idle, 0, 0);
  manager.Release(idle);
  manager.DropCache();
  EXPECT_THAT(manager.Match(Tokens(4), 4, 0), IsEmpty());
  EXPECT_EQ(manager.live(), 1);
  EXPECT_EQ(manager.free(), 3);
}

TEST(BlockManagerDeathTest, ReleasingOnceTooOftenEndsTheProcess) {
  BlockManager manager(2, 4);
  const std::vector<BlockId> blocks = Take(manager, 1);
  manager.Release(blocks);
  EXPECT_DEATH(manager.Release(blocks), "released once too often");
}

// Against a model that only counts: every block is free, cached or live, and owners never share a
// fresh block.
TEST(BlockManagerTest, RandomWorkKeepsTheBooks) {
  std::mt19937 random(7);
  BlockManager manager(50, 4);
  std::vector<std::vector<BlockId>> held;
  std::map<BlockId, int> owners;
  for (int round = 0; round < 20'000; ++round) {
    const bool take = held.empty() || random() % 2 == 0;
    if (take) {
      const std::vector<int32_t> tokens =
          Tokens(4 + random() % 40, static_cast<int32_t>(random() % 4) * 1000);
      std::vector<BlockId> blocks = manager.Match(tokens, static_cast<int64_t>(tokens.size()), 0);
      const int64_t matched = static_cast<int64_t>(blocks.size());
      if (!manager.Allocate(manager.BlocksFor(tokens.size()) - matched, &blocks)) {
        manager.Release(blocks);
        continue;
      }
      for (size_t i = 0; i < blocks.size(); ++i) {
        const int before = owners[blocks[i]]++;
        if (static_cast<int64_t>(i) >= matched) {
          EXPECT_EQ(before, 0) << "a fresh block had an owner";
        }
      }
      manager.Publish(tokens, blocks, matched, 0);
      held.push_back(std::move(blocks));
    } else {
      std::swap(held[random() % held.size()], held.back());
      for (const BlockId block : held.back()) --owners[block];
      manager.Release(held.back());
      held.pop_back();
    }
    int64_t live = 0;
    for (const auto& [block, count] : owners) live += count > 0;
    ASSERT_EQ(manager.live(), live);
    ASSERT_EQ(manager.live() + manager.cached() + manager.free(), manager.total());
  }
}

}  // namespace
}  // namespace longhaul
