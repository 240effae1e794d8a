#include "router/policy/prefix_index.h"

#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace longhaul {
namespace {

std::vector<int32_t> Tokens(int count, int32_t first = 0) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(PrefixIndex, ChainNamesWholeBlocksAndTheirPast) {
  EXPECT_EQ(ChainOf(Tokens(15), 16, 0).size(), 0u);
  EXPECT_EQ(ChainOf(Tokens(33), 16, 0).size(), 2u);
  auto changed = Tokens(48);
  changed[3] = 99;
  const auto a = ChainOf(Tokens(48), 16, 0), b = ChainOf(changed, 16, 0);
  for (int i = 0; i < 3; ++i) EXPECT_NE(a[i], b[i]);  // an early change names all later blocks anew
  EXPECT_NE(ChainOf(Tokens(16), 16, 1), ChainOf(Tokens(16), 16, 2));
  EXPECT_EQ(ChainOf(Tokens(40), 16, 7), ChainOf(Tokens(47), 16, 7));
}

TEST(PrefixIndex, MatchesTheCommonPrefixPerWorker) {
  PrefixIndex index(100);
  const auto chain = ChainOf(Tokens(64), 16, 0);
  index.Add(1, absl::MakeSpan(chain).subspan(0, 3));
  EXPECT_EQ(index.Match(1, chain), 3);
  EXPECT_EQ(index.Match(2, chain), 0);
  EXPECT_EQ(index.Match(1, ChainOf(Tokens(64, 5), 16, 0)), 0);
  EXPECT_EQ(index.Match(1, ChainOf(Tokens(64), 16, 9)), 0);  // another salt
}

TEST(PrefixIndex, AKnownBlockTellsOfAllBeforeIt) {
  PrefixIndex index(100);
  const auto chain = ChainOf(Tokens(640), 16, 0);
  index.Add(1, absl::MakeSpan(chain).subspan(10, 1));
  EXPECT_EQ(index.Match(1, chain), 11);
  EXPECT_EQ(index.Match(1, absl::MakeSpan(chain).subspan(0, 10)), 0);
  index.Add(2,
            absl::MakeSpan(chain).subspan(30, 1));  // after more unknown ones than chance explains
  EXPECT_EQ(index.Match(2, chain), 0);
}

TEST(PrefixIndex, KeepsWhatIsUsedAndLosesWhatIsNot) {
  constexpr int kEntries = 1 << 14, kBlocks = 256;
  PrefixIndex index(kEntries);
  const auto chain_of = [](int number) {
    return ChainOf(Tokens(16 * kBlocks, number * 7919), 16, 0);
  };
  const auto used = chain_of(0), unused = chain_of(1);
  index.Add(1, used);
  index.Add(1, unused);
  // An eighth of the room for others leaves all of both.
  int number = 2;
  for (; number < 2 + kEntries / 8 / kBlocks; ++number) index.Add(1, chain_of(number));
  EXPECT_EQ(index.Match(1, used), kBlocks);
  EXPECT_EQ(index.Match(1, unused), kBlocks);
  for (int i = 0; i < 4 * kEntries / kBlocks; ++i, ++number) {
    index.Add(1, chain_of(number));
    if (i % 8 == 0) index.Add(1, used);
  }
  EXPECT_EQ(index.Match(1, used), kBlocks);
  EXPECT_EQ(index.Match(1, chain_of(number - 1)), kBlocks);
  EXPECT_EQ(index.Match(1, unused), 0);
}

TEST(PrefixIndex, AChainLongerThanItsRoomKeepsItsHead) {
  PrefixIndex index(64);
  const auto chain = ChainOf(Tokens(16 * 1000), 16, 0);
  index.Add(1, chain);
  EXPECT_GE(index.Match(1, chain), 32);
  EXPECT_LE(index.Match(1, chain), 200);
}

}  // namespace
}  // namespace longhaul
