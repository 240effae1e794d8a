// The hand-written splitters against the regexes that they stand for, and the regex fallback.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "router/text/pre_tokenizer.h"
#include "router/text/split_regex.h"
#include "router/text/split_scanners.h"

namespace longhaul {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kGpt2[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwen2[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

using Scanner = const char* (*)(const char* p, const char* end);
using Pieces = std::vector<std::string>;

Pieces Scanned(Scanner scanner, const std::string& text) {
  Pieces pieces;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p != end;) {
    const char* const next = scanner(p, end);
    pieces.emplace_back(p, next);
    p = next;
  }
  return pieces;
}

Pieces Matched(const SplitRegex& regex, const std::string& text) {
  Pieces pieces;
  regex.Split(text, [&](absl::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

Pieces Split(const TokenizerData& data, const std::string& text) {
  Pieces pieces;
  const auto splitter = PreTokenizer::Make(data);
  EXPECT_TRUE(splitter.ok()) << splitter.status();
  if (!splitter.ok()) return pieces;
  (*splitter)->Split(text, [&](absl::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

// Characters of every class that a splitter distinguishes, all older than PCRE2's tables.
std::string RandomText(std::mt19937_64& random) {
  static const char* const kChars[] = {
      "a",      "Z",      "s",          "t",      "re",         "ll",     "VE", "d",
      "m",      "\u00e9", "\u4e2d",     "\u0939", "\U00020000", "0",      "7",  "\u0664",
      "\u00b2", "\u2167", " ",          " ",      " ",          "\t",     "\n", "\r",
      "\u00a0", "\u3000", "\u2028",     "\u0085", "'",          "'",      ".",  "!",
      "/",      "\u3002", "\U0001F600", "\u0301", "\u200b",     "\u017f", "_"};
  std::string text;
  const size_t count = random() % 24;
  for (size_t i = 0; i < count; ++i) text += kChars[random() % std::size(kChars)];
  return text;
}

struct ScannerCase {
  const char* name;
  const char* pattern;
  Scanner scanner;
};

class ScannerTest : public ::testing::TestWithParam<ScannerCase> {};

TEST_P(ScannerTest, DoesWhatItsRegexDoes) {
  const auto regex = SplitRegex::Compile(GetParam().pattern);
  ASSERT_TRUE(regex.ok()) << regex.status();
  std::mt19937_64 random(17);
  for (int i = 0; i < 20000; ++i) {
    const std::string text = RandomText(random);
    ASSERT_EQ(Scanned(GetParam().scanner, text), Matched(**regex, text)) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ScannerTest,
                         ::testing::Values(ScannerCase{"gpt2", kGpt2, ScanGpt2},
                                           ScannerCase{"llama3", kLlama3, ScanLlama3},
                                           ScannerCase{"qwen2", kQwen2, ScanQwen2},
                                           ScannerCase{"digits", R"(\p{N})", ScanDigits}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ScannersTest, KnowLettersAndNumbersOfUnicode16) {
  // U+10D4A is a letter since Unicode 16, U+10D40 a number.
  EXPECT_THAT(Scanned(ScanGpt2, "a\U00010D4A\U00010D40"), ElementsAre("a\U00010D4A", "\U00010D40"));
}

TEST(ScannersTest, TakeAnInvalidByteForASymbol) {
  EXPECT_THAT(Scanned(ScanGpt2, "a\xff\xc3 b"), ElementsAre("a", "\xff\xc3", " b"));
  EXPECT_THAT(Scanned(ScanQwen2, "\xed\xa0\x80x"), ElementsAre("\xed\xa0\x80", "x"));
}

TEST(PreTokenizerTest, CutsNumbersBeforeWords) {
  TokenizerData data;
  data.pre_tokenizer = "smollm";
  EXPECT_THAT(Split(data, "in  2024 it's"),
              ElementsAre("in", "  ", "2", "0", "2", "4", " it", "'s"));
}

TEST(PreTokenizerTest, AppliesEachStepToThePiecesOfTheOneBefore) {
  TokenizerData data;
  data.digits_split_single = true;
  data.pre_tokenizer_patterns = {"[xy]+", " "};
  EXPECT_THAT(Split(data, "axy b12"), ElementsAre("a", "xy", " ", "b", "1", "2"));
}

TEST(PreTokenizerTest, IsOnePieceWithoutSteps) {
  EXPECT_THAT(Split(TokenizerData(), "a b"), ElementsAre("a b"));
}

TEST(PreTokenizerTest, NamesTheKnownSplittersWhenItMeetsAnother) {
  TokenizerData data;
  data.pre_tokenizer = "nobody-knows";
  const auto status = PreTokenizer::Make(data).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nobody-knows"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("qwen2"));
}

TEST(SplitRegexTest, RejectsWhatPcre2WouldReadOtherwise) {
  for (const char* pattern :
       {R"([\p{L}&&[^a]])", "[a[bc]]", R"(\w+)", R"(\h)", R"(\bfoo)", "(?m:.)", R"(a{1,2}+)",
        R"([^\S])", "[]a]", "(", "a\\", R"(\u12)", "(*UTF)", R"(\Qx\E)", R"(\v)"}) {
    const auto status = SplitRegex::Compile(pattern).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << pattern;
    EXPECT_THAT(std::string(status.message()), HasSubstr("pattern")) << pattern;
  }
  EXPECT_FALSE(SplitRegex::Compile(std::string(100000, 'a')).ok());
}

TEST(SplitRegexTest, SpaceIsWhiteSpaceOnly) {
  // U+180E is a space to PCRE2's own \s.
  const auto regex = SplitRegex::Compile(R"(\s+|[^\s]+)");
  ASSERT_TRUE(regex.ok()) << regex.status();
  EXPECT_THAT(Matched(**regex, "\u180E\u3000 \u180E"), ElementsAre("\u180E", "\u3000 ", "\u180E"));
}

TEST(SplitRegexTest, KeepsGapsAndInvalidBytes) {
  const auto regex = SplitRegex::Compile(R"(\u0061+)");
  ASSERT_TRUE(regex.ok()) << regex.status();
  EXPECT_THAT(Matched(**regex,
                      "baac\xff\xfe"
                      "a"),
              ElementsAre("b", "aa", "c", "\xff\xfe", "a"));
  EXPECT_THAT(Matched(**regex, ""), ElementsAre());
}

TEST(SplitRegexTest, LosesNothingWhereThePatternBacktracksWithoutEnd) {
  const auto regex = SplitRegex::Compile(R"((?:a+)+b)");
  ASSERT_TRUE(regex.ok()) << regex.status();
  std::string text;
  for (int i = 0; i < 40; ++i) text += std::string(60, 'a') + " ";
  std::string joined;
  for (const std::string& piece : Matched(**regex, text)) joined += piece;
  EXPECT_EQ(joined, text);
}

}  // namespace
}  // namespace longhaul
