#include "router/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "common/base/utf8.h"

namespace longhaul {
namespace {

struct Output {
  std::vector<std::string> pieces;  // of each Push, then of Finish
  std::string text;
  bool stopped = false;
  std::string stop_string;
};

Output Decoded(DetokenizerOptions options, const std::vector<std::string>& tokens) {
  Detokenizer detokenizer(std::move(options));
  Output output;
  auto take = [&](Detokenizer::Result result) {
    EXPECT_TRUE(IsUtf8(result.text)) << "a piece split a character";
    output.text += result.text;
    output.pieces.push_back(std::move(result.text));
    output.stopped = result.stopped;
    output.stop_string = result.stop_string;
  };
  for (const std::string& token : tokens) take(detokenizer.Push(token));
  take(detokenizer.Finish());
  return output;
}

DetokenizerOptions Stops(std::vector<std::string> stop) {
  DetokenizerOptions options;
  options.stop = std::move(stop);
  return options;
}

TEST(DetokenizerTest, HoldsUnfinishedCharacters) {
  const Output output = Decoded({}, {"a\xF0\x9F", "\x98", "\x80z"});
  EXPECT_EQ(output.pieces, (std::vector<std::string>{"a", "", "😀z", ""}));
  EXPECT_FALSE(output.stopped);
}

TEST(DetokenizerTest, InvalidBytesBecomeReplacementsOnceProven) {
  EXPECT_EQ(Decoded({}, {"\xC3", "a"}).pieces, (std::vector<std::string>{"",
                                                                         "\xEF\xBF\xBD"
                                                                         "a",
                                                                         ""}));
  EXPECT_EQ(Decoded({}, {"\xFF"}).pieces, (std::vector<std::string>{"\xEF\xBF\xBD", ""}));
  EXPECT_EQ(Decoded({}, {"a", "\xE2\x82"}).pieces,
            (std::vector<std::string>{"a", "", "\xEF\xBF\xBD"}));
}

TEST(DetokenizerTest, StopsAcrossTokens) {
  const Output output = Decoded(Stops({"END"}), {"text E", "N", "D more", "never"});
  EXPECT_EQ(output.pieces, (std::vector<std::string>{"text ", "", "", "", ""}));
  EXPECT_TRUE(output.stopped);
  EXPECT_EQ(output.stop_string, "END");
}

TEST(DetokenizerTest, GivesBackWhatWasNoStop) {
  EXPECT_EQ(Decoded(Stops({"END"}), {"E", "N", "x"}).pieces,
            (std::vector<std::string>{"", "", "ENx", ""}));
  EXPECT_EQ(Decoded(Stops({"END"}), {"E", "N"}).pieces, (std::vector<std::string>{"", "", "EN"}));
  EXPECT_EQ(Decoded(Stops({"aab"}), {"aaa", "ab"}).text, "aa");
}

TEST(DetokenizerTest, MayIncludeTheStop) {
  DetokenizerOptions options = Stops({"\n\n"});
  options.include_stop_in_output = true;
  EXPECT_EQ(Decoded(options, {"a\n", "\nb"}).text, "a\n\n");
}

TEST(DetokenizerTest, EarliestEndWinsThenTheLongest) {
  EXPECT_EQ(Decoded(Stops({"abcd", "bc"}), {"xabcd"}).text, "xa");
  const Output output = Decoded(Stops({"c", "abc"}), {"xabc"});
  EXPECT_EQ(output.text, "x");
  EXPECT_EQ(output.stop_string, "abc");
}

TEST(DetokenizerTest, StopOfManyByteCharacters) {
  // The first two bytes of the stop's character are also those of another one.
  EXPECT_EQ(Decoded(Stops({"€"}), {"a\xE2\x82", "\xAD", "\xE2\x82\xAC", "b"}).text,
            "a\xE2\x82\xAD");
}

TEST(DetokenizerTest, StripsOneLeadingSpaceOfTheText) {
  DetokenizerOptions options;
  options.strip_leading_space = true;
  EXPECT_EQ(Decoded(options, {"", "  a", " b"}).text, " a b");
  EXPECT_EQ(Decoded(options, {"a", " b"}).text, "a b");
}

TEST(DetokenizerTest, ProtectedTokensDoNotStop) {
  DetokenizerOptions options = Stops({"ab"});
  options.tokens_before_stop = 2;
  EXPECT_EQ(Decoded(options, {"ab", "a", "b", "cabd"}).text, "ababc");
}

// The whole text at once, searched from scratch after each character: slow and plain.
std::string Expected(const std::string& bytes, const std::vector<std::string>& stops) {
  std::string text;
  absl::string_view rest = bytes;
  while (!rest.empty()) {
    const Utf8Step step = ReadUtf8(rest);
    const absl::string_view character = rest.substr(0, step.bytes);
    rest.remove_prefix(step.bytes);
    text += step.kind == Utf8Step::Kind::kCharacter ? std::string(character) : "\xEF\xBF\xBD";
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.size() >= stop.size() && text.substr(text.size() - stop.size()) == stop) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return text.substr(0, text.size() - longest);
  }
  return text;
}

TEST(DetokenizerTest, EveryCutOfRandomBytesGivesTheSameText) {
  std::mt19937 random(7);
  const std::string alphabet = "aab\xC3\xA9\xE2\x82\xAC\xFF";
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = random() % 4; i > 0; --i) {
      std::string stop;
      for (size_t j = 1 + random() % 4; j > 0; --j) {
        stop += std::vector<std::string>{"a", "b", "é", "€"}[random() % 4];
      }
      stops.push_back(stop);
    }
    std::string bytes;
    std::vector<std::string> tokens;
    for (size_t i = random() % 12; i > 0; --i) {
      std::string token;
      for (size_t j = random() % 5; j > 0; --j)
        token.push_back(alphabet[random() % alphabet.size()]);
      bytes += token;
      tokens.push_back(token);
    }
    ASSERT_EQ(Decoded(Stops(stops), tokens).text, Expected(bytes, stops)) << "round " << round;
  }
}

TEST(DetokenizerTest, LongNearMissesStayLinear) {
  // A matcher that started over after each mismatch would need 10^10 steps here.
  DetokenizerOptions options = Stops({std::string(100000, 'a') + "b"});
  Detokenizer detokenizer(options);
  size_t bytes = 0;
  for (int i = 0; i < 2000; ++i) bytes += detokenizer.Push(std::string(100, 'a')).text.size();
  EXPECT_EQ(bytes, 100000u);
  bytes += detokenizer.Finish().text.size();
  EXPECT_EQ(bytes, 200000u);
}

}  // namespace
}  // namespace longhaul
