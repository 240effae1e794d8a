// BPE merging against its definition, with merges and texts made to be hard: few symbols, ties,
// ranks that do not grow with the length, pieces of many windows.
#include "router/text/merge_symbols.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace longhaul {
namespace {

std::vector<int32_t> MergeByDefinition(const MergeTable& merges, std::vector<int32_t> symbols) {
  while (true) {
    Merge best;
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const Merge merge = merges.Find(symbols[i], symbols[i + 1]);
      if (merge.rank < best.rank) {
        best = merge;
        at = i;
      }
    }
    if (best.rank == Merge::kNoRank) return symbols;
    symbols[at] = best.id;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

struct Vocabulary {
  int32_t letters;
  int32_t tokens;
  bool ties;          // several pairs of one rank, as SentencePiece's scores have
  bool random_ranks;  // a token may merge earlier than its parts
};

// Every new token joins two random older ones, so that lengths grow as in a trained vocabulary.
MergeTable MakeMerges(const Vocabulary& vocabulary, std::mt19937_64& random) {
  const int32_t merged = vocabulary.tokens - vocabulary.letters;
  MergeTable merges(static_cast<size_t>(merged));
  for (int32_t i = 0; i < merged; ++i) {
    const int32_t id = vocabulary.letters + i;
    const auto left = static_cast<int32_t>(random() % static_cast<uint64_t>(id));
    const auto right = static_cast<int32_t>(random() % static_cast<uint64_t>(id));
    uint32_t rank = static_cast<uint32_t>(i);
    if (vocabulary.random_ranks) rank = static_cast<uint32_t>(random() % 1000);
    if (vocabulary.ties) rank /= 3;
    merges.Set(left, right, {rank, id});
  }
  return merges;
}

class MergeSymbolsTest : public ::testing::TestWithParam<Vocabulary> {};

TEST_P(MergeSymbolsTest, GivesWhatTheDefinitionGives) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 30; ++round) {
    const MergeTable merges = MakeMerges(GetParam(), random);
    for (size_t size : {0, 1, 2, 3, 12, 39, 40, 41, 200, 2047, 2049, 5000}) {
      if (size > 200 && round > 2) break;
      std::vector<int32_t> symbols(size);
      const bool periodic = random() % 2 == 0;
      for (size_t i = 0; i < size; ++i) {
        const uint64_t value = periodic ? i % (1 + size % 5) : random();
        symbols[i] = static_cast<int32_t>(value % static_cast<uint64_t>(GetParam().letters));
      }
      const std::vector<int32_t> expected = MergeByDefinition(merges, symbols);
      MergeSymbols(merges, &symbols);
      ASSERT_EQ(symbols, expected) << "round " << round << ", " << size << " symbols";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, MergeSymbolsTest,
    ::testing::Values(Vocabulary{1, 12, false, false}, Vocabulary{2, 40, false, false},
                      Vocabulary{2, 40, true, false}, Vocabulary{3, 90, false, true},
                      Vocabulary{4, 400, true, true}, Vocabulary{26, 600, false, false}));

TEST(MergeSymbolsTest, NeverMergesASymbolWithoutAnId) {
  MergeTable merges(1);
  merges.Set(0, 0, {0, 1});
  std::vector<int32_t> symbols = {0, 0, -1, 0, -2, -3, 0, 0};
  MergeSymbols(merges, &symbols);
  EXPECT_EQ(symbols, (std::vector<int32_t>{1, -1, 0, -2, -3, 1}));
}

TEST(MergeSymbolsTest, JoinsWindowsInsideARunOfOneLetter) {
  // Tokens of 1, 2, 4, ... 64 letters: every token border depends on where the run begins.
  MergeTable merges(6);
  for (int32_t i = 0; i < 6; ++i) merges.Set(i, i, {static_cast<uint32_t>(i), i + 1});
  std::vector<int32_t> symbols(100003, 0);
  MergeSymbols(merges, &symbols);
  std::vector<int32_t> expected(100003 / 64, 6);
  for (int32_t bit = 5; bit >= 0; --bit) {
    if ((100003 % 64 >> bit & 1) != 0) expected.push_back(bit);
  }
  EXPECT_EQ(symbols, expected);
}

}  // namespace
}  // namespace longhaul
