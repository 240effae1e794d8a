#include "router/api/completion_response.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <limits>

namespace longhaul {
namespace {

namespace json = boost::json;

using ::testing::HasSubstr;
using ::testing::Not;

ReplyHead Head(CompletionRequest::Kind kind) {
  ReplyHead head;
  head.id = "x-1";
  head.created_s = 1700000000;
  head.model = "m";
  head.kind = kind;
  return head;
}

ChoicePiece Piece(std::string text) {
  ChoicePiece piece;
  piece.text = std::move(text);
  return piece;
}

TokenLogprob Logprob(std::string text, int32_t token, float logprob) {
  TokenLogprob result;
  result.chosen = {token, logprob, text};
  result.top = {{token, logprob, text}, {9, -3.0f, "z"}};
  return result;
}

TEST(CompletionResponseTest, WholeChatReply) {
  ReplyHead head = Head(CompletionRequest::Kind::kChat);
  head.system_fingerprint = "fp";
  ChoicePiece choice = Piece("hi");
  choice.finish = Finish{};
  EXPECT_EQ(WholeReply(head, {choice}, {10, 2, 8}),
            R"({"id":"x-1","object":"chat.completion","created":1700000000,"model":"m",)"
            R"("system_fingerprint":"fp","choices":[{"index":0,"message":{"role":"assistant",)"
            R"("content":"hi","refusal":null},"logprobs":null,"finish_reason":"stop",)"
            R"("stop_reason":null}],"usage":{"prompt_tokens":10,"total_tokens":12,)"
            R"("completion_tokens":2,"prompt_tokens_details":{"cached_tokens":8}}})");
}

TEST(CompletionResponseTest, ChatStreamHasRoleFirstAndReasonLast) {
  const ReplyHead head = Head(CompletionRequest::Kind::kChat);
  ChoicePiece first = Piece("");
  first.first = true;
  EXPECT_THAT(StreamChunk(head, first, nullptr),
              HasSubstr(R"("delta":{"role":"assistant","content":""},"logprobs":null,)"
                        R"("finish_reason":null)"));
  EXPECT_THAT(StreamChunk(head, Piece("a"), nullptr), HasSubstr(R"("delta":{"content":"a"})"));
  ChoicePiece last = Piece("");
  last.finish = Finish{Finish::Reason::kLength, "", -1};
  const std::string chunk = StreamChunk(head, last, nullptr);
  EXPECT_THAT(chunk, HasSubstr(R"("delta":{},"logprobs":null,"finish_reason":"length")"));
  EXPECT_THAT(chunk, HasSubstr(R"("object":"chat.completion.chunk")"));
  EXPECT_THAT(chunk, Not(HasSubstr("usage")));
}

TEST(CompletionResponseTest, IncludeUsageAddsNullAndOneMoreChunk) {
  ReplyHead head = Head(CompletionRequest::Kind::kText);
  head.include_usage = true;
  EXPECT_THAT(StreamChunk(head, Piece("a"), nullptr), HasSubstr(R"("usage":null)"));
  const Usage usage = {3, 1, 0};
  EXPECT_THAT(StreamChunk(head, Piece("a"), &usage), HasSubstr(R"("total_tokens":4)"));
  EXPECT_THAT(UsageChunk(head, usage), HasSubstr(R"("choices":[],"usage":{"prompt_tokens":3)"));
}

TEST(CompletionResponseTest, NamesWhatStoppedIt) {
  const ReplyHead head = Head(CompletionRequest::Kind::kText);
  ChoicePiece by_string = Piece("a");
  by_string.finish = Finish{Finish::Reason::kStop, "END", -1};
  EXPECT_THAT(StreamChunk(head, by_string, nullptr), HasSubstr(R"("stop_reason":"END")"));
  ChoicePiece by_token = Piece("a");
  by_token.finish = Finish{Finish::Reason::kStop, "", 17};
  EXPECT_THAT(StreamChunk(head, by_token, nullptr), HasSubstr(R"("stop_reason":17)"));
}

TEST(CompletionResponseTest, ChatLogprobsHaveBytes) {
  ReplyHead head = Head(CompletionRequest::Kind::kChat);
  head.top_logprobs = 1;
  ChoicePiece piece = Piece("é");
  piece.logprobs = {Logprob("\xC3", 4, -0.5f)};
  const json::value reply = json::parse(StreamChunk(head, piece, nullptr));
  const json::value& token = reply.at("choices").at(0).at("logprobs").at("content").at(0);
  EXPECT_EQ(json::serialize(token.at("bytes")), "[195]");
  EXPECT_EQ(token.at("logprob").as_double(), -0.5);
  EXPECT_EQ(token.at("top_logprobs").as_array().size(), 1u);
}

TEST(CompletionResponseTest, TextLogprobsHaveOffsetsAndTheChosenToken) {
  ReplyHead head = Head(CompletionRequest::Kind::kText);
  head.top_logprobs = 0;
  ChoicePiece piece = Piece("aéb");
  piece.characters_before = 5;
  piece.logprobs = {Logprob("aé", 1, -0.5f),
                    Logprob("b", 2, -std::numeric_limits<float>::infinity())};
  const json::value reply = json::parse(StreamChunk(head, piece, nullptr));
  const json::value& logprobs = reply.at("choices").at(0).at("logprobs");
  EXPECT_EQ(json::serialize(logprobs.at("text_offset")), "[5,7]");
  EXPECT_EQ(json::serialize(logprobs.at("tokens")), "[\"aé\",\"b\"]");
  EXPECT_EQ(json::serialize(logprobs.at("top_logprobs").at(0)), "{\"aé\":-5E-1}");
  EXPECT_EQ(logprobs.at("token_logprobs").at(1).to_number<double>(), -9999.0);
  EXPECT_EQ(LogprobCharacters(head, piece.logprobs), 3);
}

TEST(CompletionResponseTest, TokenIdsWhenAsked) {
  const std::vector<int32_t> prompt = {7, 8};
  ChoicePiece piece = Piece("a");
  piece.token_ids = {1, 2};
  piece.first = true;
  piece.prompt_token_ids = prompt;
  ReplyHead text = Head(CompletionRequest::Kind::kText);
  EXPECT_THAT(StreamChunk(text, piece, nullptr), Not(HasSubstr("token_ids")));
  text.return_token_ids = true;
  EXPECT_THAT(StreamChunk(text, piece, nullptr),
              HasSubstr(R"("token_ids":[1,2],"prompt_token_ids":[7,8]}])"));
  ReplyHead chat = Head(CompletionRequest::Kind::kChat);
  chat.return_token_ids = true;
  EXPECT_THAT(WholeReply(chat, {piece}, {}), HasSubstr(R"(},"prompt_token_ids":[7,8]})"));
  text.tokens_as_token_ids = true;
  text.top_logprobs = 0;
  piece.logprobs = {Logprob("a", 1, -1)};
  EXPECT_THAT(StreamChunk(text, piece, nullptr), HasSubstr(R"("tokens":["token_id:1"])"));
}

TEST(CompletionResponseTest, OtherReplies) {
  EXPECT_EQ(SseEvent("{}"), "data: {}\n\n");
  EXPECT_EQ(ModelsReply({{"m", 5, 8192}}),
            R"({"object":"list","data":[{"id":"m","object":"model","created":5,)"
            R"("owned_by":"longhaul","root":"m","parent":null,"max_model_len":8192}]})");
  EXPECT_EQ(TokenizeReply({1, 2}, 8192, nullptr),
            R"({"count":2,"max_model_len":8192,"tokens":[1,2],"token_strs":null})");
  const std::vector<std::string> strings = {"a", "b"};
  EXPECT_THAT(TokenizeReply({1, 2}, 8192, &strings), HasSubstr(R"("token_strs":["a","b"])"));
  EXPECT_EQ(DetokenizeReply("a\"b"), R"({"prompt":"a\"b"})");
}

}  // namespace
}  // namespace longhaul
