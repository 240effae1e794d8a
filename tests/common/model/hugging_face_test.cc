// tokenizer.json and its neighbours: what they may say, in which forms, and what is refused.
#include "common/model/hugging_face.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_replace.h"
#include "tests/common/model/hugging_face_files.h"

namespace longhaul {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The tokenizer of the small folder with `from` in tokenizer.json replaced.
absl::StatusOr<TokenizerData> WithTokenizer(const std::string& from, const std::string& to) {
  const HuggingFaceFolder folder;
  const std::string changed = absl::StrReplaceAll(kSmallTokenizer, {{from, to}});
  EXPECT_TRUE(from == to || changed != kSmallTokenizer) << from;
  folder.Write("tokenizer.json", changed);
  return TokenizerFromHuggingFace(folder.path(), 8);
}

absl::StatusOr<TokenizerData> WithTokenizerConfig(const std::string& text) {
  const HuggingFaceFolder folder;
  folder.Write("tokenizer_config.json", text);
  return TokenizerFromHuggingFace(folder.path(), 8);
}

std::string ErrorOf(const absl::StatusOr<TokenizerData>& result) {
  return std::string(result.status().message());
}

TEST(HuggingFaceTest, ReadsTheSmallFolder) {
  const HuggingFaceFolder folder;
  const auto model = ModelFromHuggingFace(folder.path());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->config.eos_tokens, ElementsAre(1, 2));
  const TokenizerData& tokenizer = model->tokenizer;
  EXPECT_THAT(tokenizer.tokens, ElementsAre("<s>", "</s>", "<tool>", "a", "b", "c", "ab"));
  EXPECT_THAT(
      tokenizer.kinds,
      ElementsAre(TokenKind::kControl, TokenKind::kControl, TokenKind::kUserDefined,
                  TokenKind::kNormal, TokenKind::kNormal, TokenKind::kNormal, TokenKind::kNormal));
  EXPECT_THAT(tokenizer.pre_tokenizer_patterns, ElementsAre("\\s+"));
  EXPECT_EQ(tokenizer.pre_tokenizer, "");
  EXPECT_TRUE(tokenizer.normalize_nfc);
  EXPECT_TRUE(tokenizer.ignore_merges);
  EXPECT_TRUE(tokenizer.add_bos);
  EXPECT_EQ(tokenizer.bos_token, 0);
  EXPECT_EQ(tokenizer.eos_token, 1);
  EXPECT_EQ(tokenizer.chat_template, "{{ messages }}");
}

TEST(HuggingFaceTest, MergesInBothForms) {
  for (const char* merges : {R"(["a b"])", R"([["a", "b"]])"}) {
    const auto data = WithTokenizer(R"(["a b"])", merges);
    ASSERT_TRUE(data.ok()) << data.status();
    EXPECT_THAT(data->merges, ElementsAre(testing::Pair("a", "b")));
  }
  for (const char* merges : {R"(["ab"])", R"(["a b c"])", R"([["a"]])", R"([3])", R"(["a "])"}) {
    EXPECT_THAT(ErrorOf(WithTokenizer(R"(["a b"])", merges)), HasSubstr("merges[0]")) << merges;
  }
}

TEST(HuggingFaceTest, PreTokenizerSteps) {
  const std::string split =
      R"({"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false})";
  const auto digits = WithTokenizer(split, R"({"type": "Digits", "individual_digits": true})");
  ASSERT_TRUE(digits.ok()) << digits.status();
  EXPECT_TRUE(digits->digits_split_single);
  EXPECT_TRUE(digits->pre_tokenizer_patterns.empty());
  const auto later = WithTokenizer(split, split + R"(,{"type":"Digits","individual_digits":true})");
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_THAT(later->pre_tokenizer_patterns, ElementsAre("\\s+", "\\p{N}"));
  const auto text = WithTokenizer(R"({"Regex": "\\s+"})", R"({"String": "a.b"})");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(text->pre_tokenizer_patterns, ElementsAre("a\\.b"));
  const auto named = WithTokenizer(R"("use_regex": false)", R"("use_regex": true)");
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_EQ(named->pre_tokenizer, "gpt2");

  EXPECT_THAT(ErrorOf(WithTokenizer("Isolated", "MergedWithPrevious")),
              HasSubstr("the behavior MergedWithPrevious is not supported"));
  EXPECT_THAT(ErrorOf(WithTokenizer(split, R"({"type": "Whitespace"})")),
              HasSubstr("pre_tokenizer[0]: the pre-tokenizer Whitespace"));
  EXPECT_THAT(ErrorOf(WithTokenizer(R"("add_prefix_space": false)", R"("add_prefix_space": true)")),
              HasSubstr("add_prefix_space"));
  EXPECT_THAT(ErrorOf(WithTokenizer(R"("type": "ByteLevel")", R"("type": "Metaspace")")),
              HasSubstr("cuts SentencePiece text"));
  EXPECT_THAT(ErrorOf(WithTokenizer(R"({"type": "NFC"})", R"({"type": "Lowercase"})")),
              HasSubstr("the normalizer Lowercase"));
}

TEST(HuggingFaceTest, SentencePieceForms) {
  const std::string all = std::string(kSmallTokenizer);
  const size_t begin = all.find(R"("normalizer")");
  const size_t end = all.find(R"("post_processor")");
  const std::string steps = all.substr(begin, end - begin);
  const auto older = WithTokenizer(steps, R"("normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},)");
  ASSERT_TRUE(older.ok()) << older.status();
  EXPECT_EQ(older->model, TokenizerData::Model::kSentencePieceBpe);
  EXPECT_TRUE(older->add_space_prefix);
  EXPECT_FALSE(older->space_prefix_first_only);
  const auto newer = WithTokenizer(steps, R"("pre_tokenizer": {"type": "Metaspace",
      "replacement": "▁", "prepend_scheme": "first", "split": false},)");
  ASSERT_TRUE(newer.ok()) << newer.status();
  EXPECT_TRUE(newer->add_space_prefix);
  EXPECT_TRUE(newer->space_prefix_first_only);
  EXPECT_THAT(ErrorOf(WithTokenizer(steps, "")), HasSubstr("neither byte-level"));
}

TEST(HuggingFaceTest, IdsAreChecked) {
  EXPECT_THAT(ErrorOf(WithTokenizer(R"("ab": 6)", R"("ab": 8)")),
              HasSubstr("\"ab\" has id 8; 0 to 7"));
  EXPECT_THAT(ErrorOf(WithTokenizer(R"("ab": 6)", R"("ab": 5)")), HasSubstr("the same id 5"));
  EXPECT_THAT(ErrorOf(WithTokenizer(R"("ab": 6)", R"("ab": -1)")), HasSubstr("id -1"));
  EXPECT_THAT(ErrorOf(WithTokenizer(R"("ab": 6)", R"("ab": "6")")), HasSubstr("not an integer"));
  EXPECT_THAT(ErrorOf(WithTokenizer(R"("id": 2, "content")", R"("id": 200000000, "content")")),
              HasSubstr("id is 200000000; 0 to 7"));
  EXPECT_THAT(ErrorOf(WithTokenizer(R"("ids": [0])", R"("ids": [7])")), HasSubstr("id 7"));
  EXPECT_THAT(ErrorOf(WithTokenizer(R"("special": false)", R"("special": false, "lstrip": true)")),
              HasSubstr("lstrip of token \"<tool>\""));
  const auto gap = WithTokenizer(R"("ab": 6)", R"("ab": 7)");
  ASSERT_TRUE(gap.ok()) << gap.status();
  EXPECT_EQ(gap->kinds[6], TokenKind::kUnused);
}

TEST(HuggingFaceTest, TokenizerConfigForms) {
  const auto list = WithTokenizerConfig(
      R"({"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]})");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->chat_template, "y");
  EXPECT_EQ(list->eos_token, -1);
  const auto no_bos = WithTokenizerConfig(R"({"add_bos_token": false, "eos_token": "</s>"})");
  ASSERT_TRUE(no_bos.ok()) << no_bos.status();
  EXPECT_FALSE(no_bos->add_bos);
  EXPECT_EQ(no_bos->eos_token, 1);
  EXPECT_THAT(ErrorOf(WithTokenizerConfig(R"({"eos_token": "<|none|>"})")),
              HasSubstr("eos_token \"<|none|>\" is not in tokenizer.json"));
  EXPECT_THAT(ErrorOf(WithTokenizerConfig(R"({"add_eos_token": true})")),
              HasSubstr("no such token is named"));
  EXPECT_THAT(ErrorOf(WithTokenizerConfig(R"({"chat_template": [{"name": "x"}]})")),
              HasSubstr("none is named default"));
}

TEST(HuggingFaceTest, JsonIsBounded) {
  const HuggingFaceFolder folder;
  folder.Write("config.json", std::string(100000, '['));
  EXPECT_THAT(std::string(ConfigFromHuggingFace(folder.path()).status().message()),
              HasSubstr("config.json is not valid JSON"));
  folder.Write("config.json", "[]");
  EXPECT_THAT(std::string(ConfigFromHuggingFace(folder.path()).status().message()),
              HasSubstr("not a JSON object"));
}

}  // namespace
}  // namespace longhaul
