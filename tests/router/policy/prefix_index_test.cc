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

TEST(PrefixIndex, ForgetsADeadIncarnationOnly) {
  PrefixIndex index(100);
  const auto chain = ChainOf(Tokens(64), 16, 0);
  index.Add(1, chain);
  index.Add(2, chain);
  index.Forget(1);
  EXPECT_EQ(index.Match(1, chain), 0);
  EXPECT_EQ(index.Match(2, chain), 4);
  EXPECT_EQ(index.entries(), 4);
  index.Add(3, ChainOf(Tokens(1600), 16, 0));  // into the forgotten one's places and the rest
  EXPECT_EQ(index.entries(), 100);
  EXPECT_EQ(index.Match(3, ChainOf(Tokens(1600), 16, 0)), 100);
  EXPECT_EQ(index.Match(2, chain), 0);
}

TEST(PrefixIndex, IsBoundedAndEvictsTailsOfTheLeastRecentlyUsed) {
  PrefixIndex index(6);
  const auto a = ChainOf(Tokens(64), 16, 0), b = ChainOf(Tokens(64, 1000), 16, 0);
  index.Add(1, a);
  index.Add(1, b);
  EXPECT_EQ(index.entries(), 6);
  EXPECT_EQ(index.Match(1, b), 4);
  EXPECT_EQ(index.Match(1, a), 2);
  index.Add(1, a);  // now b is the older
  EXPECT_EQ(index.Match(1, a), 4);
  EXPECT_EQ(index.Match(1, b), 2);
  index.Add(1, ChainOf(Tokens(1600), 16, 0));  // longer than the index
  EXPECT_EQ(index.entries(), 6);
  EXPECT_EQ(index.Match(1, ChainOf(Tokens(1600), 16, 0)), 6);
}

}  // namespace
}  // namespace longhaul
