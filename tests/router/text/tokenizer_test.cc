// The tokenizer on vocabularies small enough to see through.
#include "router/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace longhaul {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// GPT-2's character for a byte below U+0100 that is printable, and for the few others used here.
std::string Printable(unsigned byte) {
  if (byte == ' ') return "\u0120";
  if (byte == '\n') return "\u010a";
  if (byte < 0x7F) return std::string(1, static_cast<char>(byte));
  if (byte == 0xFF) return "\u00ff";
  if (byte == 0xC3) return "\u00c3";
  if (byte == 0xA9) return "\u00a9";
  return "";
}

void Add(TokenizerData* data, const std::string& token, TokenKind kind = TokenKind::kNormal) {
  data->tokens.push_back(token);
  data->kinds.push_back(kind);
}

int32_t IdOf(const TokenizerData& data, const std::string& token) {
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    if (data.tokens[id] == token) return static_cast<int32_t>(id);
  }
  return -1;
}

// Ids 0.. : <bos> <eos> <user>, then printable ASCII, space, newline, bytes FF C3 A9, and merges.
TokenizerData ByteLevel() {
  TokenizerData data;
  data.pre_tokenizer = "gpt2";
  Add(&data, "<bos>", TokenKind::kControl);
  Add(&data, "<eos>", TokenKind::kControl);
  Add(&data, "<user>", TokenKind::kUserDefined);
  for (unsigned byte = 0; byte < 256; ++byte) {
    if ((byte > ' ' || byte == '\n' || byte == ' ') && !Printable(byte).empty()) {
      Add(&data, Printable(byte));
    }
  }
  data.merges = {{"h", "e"},    {"l", "l"},          {"he", "ll"},
                 {"hell", "o"}, {"\u0120", "hello"}, {"\u00c3", "\u00a9"}};
  for (const auto& [left, right] : data.merges) Add(&data, left + right);
  data.bos_token = 0;
  data.eos_token = 1;
  return data;
}

std::unique_ptr<Tokenizer> Make(const TokenizerData& data) {
  auto tokenizer = Tokenizer::Make(data);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<std::string> Tokens(const Tokenizer& tokenizer, absl::string_view text,
                                bool add_special = false, bool parse_special = false) {
  std::vector<std::string> tokens;
  for (int32_t id : tokenizer.Encode(text, add_special, parse_special)) {
    tokens.emplace_back(tokenizer.TokenBytes(id));
  }
  return tokens;
}

TEST(ByteLevelTest, MergesInOrderOfPriority) {
  const auto tokenizer = Make(ByteLevel());
  EXPECT_THAT(Tokens(*tokenizer, "hello hello"), ElementsAre("hello", " hello"));
  EXPECT_THAT(Tokens(*tokenizer, "helo"), ElementsAre("he", "l", "o"));
  EXPECT_THAT(Tokens(*tokenizer, "caf\u00e9"), ElementsAre("c", "a", "f", "\u00e9"));
  EXPECT_THAT(Tokens(*tokenizer, ""), IsEmpty());
}

TEST(ByteLevelTest, AddsBosAndEosWhereTheModelWantsThem) {
  TokenizerData data = ByteLevel();
  EXPECT_THAT(Tokens(*Make(data), "a", true), ElementsAre("a"));
  data.add_bos = true;
  data.add_eos = true;
  const auto tokenizer = Make(data);
  EXPECT_THAT(Tokens(*tokenizer, "a", true), ElementsAre("<bos>", "a", "<eos>"));
  EXPECT_THAT(Tokens(*tokenizer, "", true), ElementsAre("<bos>", "<eos>"));
  EXPECT_THAT(Tokens(*tokenizer, "a", false), ElementsAre("a"));
}

TEST(ByteLevelTest, FindsControlTokensOnlyWhenAsked) {
  const TokenizerData data = ByteLevel();
  const auto tokenizer = Make(data);
  EXPECT_THAT(tokenizer->Encode("x<eos>", false, true), ElementsAre(IdOf(data, "x"), 1));
  EXPECT_THAT(Tokens(*tokenizer, "<eos>", false, false), ElementsAre("<", "e", "o", "s", ">"));
  EXPECT_THAT(tokenizer->Encode("<user><user", false, false),
              ElementsAre(2, IdOf(data, "<"), IdOf(data, "u"), IdOf(data, "s"), IdOf(data, "e"),
                          IdOf(data, "r")));
  EXPECT_TRUE(tokenizer->IsControl(0));
  EXPECT_FALSE(tokenizer->IsControl(2));
  EXPECT_EQ(tokenizer->AddedTokenId("<eos>"), 1);
  EXPECT_EQ(tokenizer->AddedTokenId("hello"), std::nullopt);
}

TEST(ByteLevelTest, TakesTheLongestAddedToken) {
  TokenizerData data = ByteLevel();
  Add(&data, "<user><eos>", TokenKind::kControl);
  const auto tokenizer = Make(data);
  EXPECT_THAT(Tokens(*tokenizer, "<user><eos><user><eo", false, true),
              ElementsAre("<user><eos>", "<user>", "<", "e", "o"));
}

TEST(ByteLevelTest, SplitsTheTextBetweenAddedTokensByItself) {
  // The space stays with the text before <user>, where nothing follows it.
  EXPECT_THAT(Tokens(*Make(ByteLevel()), "a <user>hello"),
              ElementsAre("a", " ", "<user>", "hello"));
}

TEST(ByteLevelTest, KeepsInvalidBytesThatHaveTokens) {
  EXPECT_THAT(Tokens(*Make(ByteLevel()), "a\xff\xc3"), ElementsAre("a", "\xff", "\xc3"));
}

TEST(ByteLevelTest, LeavesOutBytesWithoutTokens) {
  EXPECT_THAT(Tokens(*Make(ByteLevel()), "he\xfello"), ElementsAre("he", "ll", "o"));
}

TEST(ByteLevelTest, IgnoreMergesTakesAPieceThatIsAToken) {
  TokenizerData data = ByteLevel();
  Add(&data, "world");
  EXPECT_THAT(Tokens(*Make(data), "world"), ElementsAre("w", "o", "r", "l", "d"));
  data.ignore_merges = true;
  EXPECT_THAT(Tokens(*Make(data), "world"), ElementsAre("world"));
}

TEST(ByteLevelTest, NormalizesWhereTheModelAsks) {
  TokenizerData data = ByteLevel();
  data.pre_tokenizer = "qwen2";
  EXPECT_THAT(Tokens(*Make(data), "e\u0301"), ElementsAre("\u00e9"));
}

TEST(ByteLevelTest, GivesTheSameFromTheCacheOfAPieceAsWithout) {
  const auto tokenizer = Make(ByteLevel());
  const std::vector<int32_t> once = tokenizer->Encode(" helol", false, false);
  std::vector<int32_t> many;
  std::string text;
  for (int i = 0; i < 500; ++i) {
    text += " helol";
    many.insert(many.end(), once.begin(), once.end());
  }
  EXPECT_EQ(tokenizer->Encode(text, false, false), many);
}

// Ids 0.. : <unk> <s> </s>, the 256 bytes, then pieces with scores.
TokenizerData SentencePiece(bool with_bytes) {
  TokenizerData data;
  data.model = TokenizerData::Model::kSentencePieceBpe;
  data.add_space_prefix = true;
  Add(&data, "<unk>", TokenKind::kUnknown);
  Add(&data, "<s>", TokenKind::kControl);
  Add(&data, "</s>", TokenKind::kControl);
  data.unknown_token = 0;
  const char* const kHex = "0123456789ABCDEF";
  for (int byte = 0; with_bytes && byte < 256; ++byte) {
    Add(&data, std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">", TokenKind::kByte);
  }
  for (const char* piece : {"\u2581a", "ab", "\u2581ab", "bc", "\u2581", "a", "b", "c", "<", ">"})
    Add(&data, piece);
  for (size_t id = 0; id < data.tokens.size(); ++id) data.scores.push_back(-static_cast<float>(id));
  return data;
}

TEST(SentencePieceTest, MergesTheHighestScoreFirst) {
  const auto tokenizer = Make(SentencePiece(true));
  EXPECT_THAT(Tokens(*tokenizer, "ab abc"), ElementsAre(" ab", " ab", "c"));
  EXPECT_THAT(Tokens(*tokenizer, "cab"), ElementsAre(" ", "c", "ab"));
}

TEST(SentencePieceTest, MergesTheLeftmostOfEqualScores) {
  TokenizerData data = SentencePiece(true);
  data.add_space_prefix = false;
  data.scores.assign(data.scores.size(), 0.0f);
  EXPECT_THAT(Tokens(*Make(data), "abc"), ElementsAre("ab", "c"));
}

TEST(SentencePieceTest, WritesUnknownCharactersAsBytes) {
  const auto tokenizer = Make(SentencePiece(true));
  EXPECT_THAT(Tokens(*tokenizer, "\u00e9\xff"), ElementsAre(" ", "\xc3", "\xa9", "\xff"));
  EXPECT_THAT(Tokens(*tokenizer, "<0x41>"), ElementsAre(" ", "<", "0", "x", "4", "1", ">"));
}

TEST(SentencePieceTest, FusesUnknownCharactersWithoutByteTokens) {
  const auto tokenizer = Make(SentencePiece(false));
  EXPECT_THAT(tokenizer->Encode("xyza", false, false).size(), 3u);  // U+2581 <unk> a
  EXPECT_THAT(Tokens(*tokenizer, "xyza"), ElementsAre(" ", "<unk>", "a"));
}

TEST(SentencePieceTest, PutsASpaceBeforeEachStretchOfText) {
  TokenizerData data = SentencePiece(true);
  EXPECT_THAT(Tokens(*Make(data), "a<s>a", false, true), ElementsAre(" a", "<s>", " a"));
  data.space_prefix_first_only = true;
  EXPECT_THAT(Tokens(*Make(data), "a<s>a", false, true), ElementsAre(" a", "<s>", "a"));
  EXPECT_THAT(Tokens(*Make(data), " a"), ElementsAre(" a"));
}

TEST(SentencePieceTest, MergesWhatTheMergesSayWhenThereAreNoScores) {
  TokenizerData data = SentencePiece(true);
  data.scores.clear();
  data.merges = {{"b", "c"}, {"\u2581", "a"}};
  EXPECT_THAT(Tokens(*Make(data), "abc ab"), ElementsAre(" a", "bc", " a", "b"));
}

TEST(SentencePieceTest, MergesAcrossWordsWhereTheVocabularyDoes) {
  TokenizerData data = SentencePiece(true);
  Add(&data, "a\u2581");
  data.scores.push_back(1.0f);
  EXPECT_THAT(Tokens(*Make(data), "a b"), ElementsAre(" ", "a ", "b"));
}

TEST(SentencePieceTest, MergesCharactersThatAreNoTokens) {
  TokenizerData data = SentencePiece(true);
  Add(&data, "xy");
  data.scores.push_back(1.0f);
  EXPECT_THAT(Tokens(*Make(data), "xyx"), ElementsAre(" ", "xy", "x"));
}

struct BadCase {
  const char* what;
  void (*spoil)(TokenizerData* data);
};

TEST(TokenizerMakeTest, RejectsWhatCannotBeUsedAndSaysWhy) {
  const std::vector<BadCase> cases = {
      {"0 tokens", [](TokenizerData* data) { *data = TokenizerData(); }},
      {"token types", [](TokenizerData* data) { data->kinds.pop_back(); }},
      {"scores", [](TokenizerData* data) { data->scores.resize(3); }},
      {"not a number",
       [](TokenizerData* data) {
         data->scores.assign(data->tokens.size(), std::numeric_limits<float>::quiet_NaN());
       }},
      {"BOS token has id 100000", [](TokenizerData* data) { data->bos_token = 100000; }},
      {"EOS token has id -2", [](TokenizerData* data) { data->eos_token = -2; }},
      {"BOS token but names none",
       [](TokenizerData* data) {
         data->bos_token = -1;
         data->add_bos = true;
       }},
      {"at most 4096", [](TokenizerData* data) { data->tokens[5] = std::string(5000, 'a'); }},
      {"merge 6 needs the token \"zz\"",
       [](TokenizerData* data) { data->merges.emplace_back("z", "z"); }},
      {"unknown pre-tokenizer", [](TokenizerData* data) { data->pre_tokenizer = "?"; }},
      {"at most 32", [](TokenizerData* data) { data->pre_tokenizer_patterns.assign(99, "a"); }},
      {"a byte token must look like",
       [](TokenizerData* data) {
         *data = SentencePiece(true);
         data->tokens[3] = "<0xZZ>";
       }},
  };
  for (const BadCase& bad : cases) {
    TokenizerData data = ByteLevel();
    bad.spoil(&data);
    const auto status = Tokenizer::Make(data).status();
    EXPECT_FALSE(status.ok()) << bad.what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.what));
  }
}

}  // namespace
}  // namespace longhaul
