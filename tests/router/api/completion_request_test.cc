#include "router/api/completion_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "router/api/error.h"

namespace longhaul {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

// Extra fields into an otherwise complete body.
std::string Text(const std::string& fields) {
  return absl::StrCat(R"({"model":"m","prompt":"hi")", fields.empty() ? "" : ",", fields, "}");
}
std::string Chat(const std::string& fields) {
  return absl::StrCat(R"({"model":"m","messages":[{"role":"user","content":"hi"}])",
                      fields.empty() ? "" : ",", fields, "}");
}

CompletionRequest Parsed(absl::StatusOr<CompletionRequest> request) {
  EXPECT_TRUE(request.ok()) << request.status();
  return request.ok() ? *std::move(request) : CompletionRequest();
}

void ExpectRefused(const absl::Status& status, absl::string_view param, absl::string_view why) {
  ASSERT_FALSE(status.ok()) << "expected a refusal of " << param;
  const ApiError error = ApiErrorFromStatus(status);
  EXPECT_EQ(error.http_status, 400);
  EXPECT_EQ(error.type, "invalid_request_error");
  EXPECT_EQ(error.param, std::string(param));
  EXPECT_THAT(error.message, HasSubstr(std::string(why)));
}

TEST(CompletionRequestTest, DefaultsAreOpenAis) {
  const CompletionRequest request = Parsed(ParseCompletionRequest(Text(""), {}));
  EXPECT_EQ(request.model, "m");
  ASSERT_EQ(request.prompts.size(), 1u);
  EXPECT_EQ(request.prompts[0].text, "hi");
  EXPECT_FALSE(request.prompts[0].is_tokens);
  EXPECT_EQ(request.output_tokens_max, 16);
  EXPECT_EQ(request.n, 1);
  EXPECT_FALSE(request.seed.has_value());
  EXPECT_FALSE(request.wants_logprobs());
  EXPECT_FLOAT_EQ(request.sampling.temperature, 1.0f);
  EXPECT_TRUE(request.add_special_tokens);

  const CompletionRequest chat = Parsed(ParseChatRequest(Chat(""), {}));
  EXPECT_FALSE(chat.output_tokens_max.has_value());
  EXPECT_FALSE(chat.add_special_tokens);
  EXPECT_TRUE(chat.add_generation_prompt);
}

TEST(CompletionRequestTest, ReadsEveryFormOfPrompt) {
  auto prompts = [](absl::string_view prompt) {
    return Parsed(ParseCompletionRequest(absl::StrCat(R"({"prompt":)", prompt, "}"), {})).prompts;
  };
  EXPECT_THAT(prompts("[1,2,3]")[0].tokens, ElementsAre(1, 2, 3));
  const std::vector<Prompt> strings = prompts(R"(["a","b"])");
  ASSERT_EQ(strings.size(), 2u);
  EXPECT_EQ(strings[1].text, "b");
  const std::vector<Prompt> arrays = prompts("[[1,2],[3]]");
  ASSERT_EQ(arrays.size(), 2u);
  EXPECT_TRUE(arrays[1].is_tokens);
  EXPECT_THAT(arrays[1].tokens, ElementsAre(3));
}

TEST(CompletionRequestTest, RefusesBadPrompts) {
  ApiLimits limits;
  limits.vocabulary_tokens = 100;
  auto refused = [&](absl::string_view prompt, absl::string_view param, absl::string_view why) {
    ExpectRefused(
        ParseCompletionRequest(absl::StrCat(R"({"prompt":)", prompt, "}"), limits).status(), param,
        why);
  };
  refused("null", "prompt", "required");
  refused("7", "prompt", "not a number");
  refused("[]", "prompt", "empty array");
  refused("[[]]", "prompt[0]", "at least one token id");
  refused("[1,\"a\"]", "prompt", "element 1 is a string");
  refused("[\"a\",1]", "prompt[1]", "not a number");
  refused("[1,100]", "prompt", "from 0 to 99; element 1 is 100");
  refused("[1,-1]", "prompt", "element 1 is -1");
  refused("[1,2.5]", "prompt", "element 1 is a number");
}

TEST(CompletionRequestTest, ReadsSamplingAndStops) {
  const CompletionRequest request = Parsed(ParseChatRequest(
      Chat(R"("temperature":0,"top_p":0.5,"top_k":-1,"min_p":0.1,"repetition_penalty":1.1,
              "presence_penalty":-2,"frequency_penalty":2,"seed":-7,"logit_bias":{"5":-100,"6":1.5},
              "stop":["a","bc"],"stop_token_ids":[3],"ignore_eos":true,"min_tokens":2,
              "max_tokens":9,"max_completion_tokens":12,"n":3,"logprobs":true,"top_logprobs":4,
              "stream":true,"stream_options":{"include_usage":true},"return_token_ids":true,
              "include_stop_str_in_output":true,"nobody_knows_me":{"x":1}, "user":null)"),
      {}));
  EXPECT_FLOAT_EQ(request.sampling.temperature, 0.0f);
  EXPECT_FLOAT_EQ(request.sampling.top_p, 0.5f);
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_FLOAT_EQ(request.sampling.repetition_penalty, 1.1f);
  EXPECT_THAT(request.sampling.logit_bias, ElementsAre(Pair(5, -100.0f), Pair(6, 1.5f)));
  EXPECT_EQ(request.seed, static_cast<uint64_t>(-7));
  EXPECT_THAT(request.stop, ElementsAre("a", "bc"));
  EXPECT_THAT(request.stop_tokens, ElementsAre(3));
  EXPECT_TRUE(request.ignore_eos);
  EXPECT_EQ(request.output_tokens_min, 2);
  EXPECT_EQ(request.output_tokens_max, 12) << "max_completion_tokens supersedes max_tokens";
  EXPECT_EQ(request.n, 3);
  EXPECT_EQ(request.sampling.top_logprobs, 4);
  EXPECT_TRUE(request.stream && request.include_usage && request.return_token_ids);
  EXPECT_TRUE(request.include_stop_in_output);
}

struct BadField {
  const char* fields;
  const char* param;
  const char* why;
};

class BadFieldTest : public ::testing::TestWithParam<BadField> {};

TEST_P(BadFieldTest, IsRefusedByNameOnBothRoutes) {
  ExpectRefused(ParseCompletionRequest(Text(GetParam().fields), {}).status(), GetParam().param,
                GetParam().why);
  ExpectRefused(ParseChatRequest(Chat(GetParam().fields), {}).status(), GetParam().param,
                GetParam().why);
}

INSTANTIATE_TEST_SUITE_P(
    Fields, BadFieldTest,
    ::testing::Values(
        BadField{R"("model":3)", "model", "must be a string, not a number"},
        BadField{R"("temperature":2.1)", "temperature", "from 0 to 2, got 2.1"},
        BadField{R"("temperature":"hot")", "temperature", "must be a number, not a string"},
        BadField{R"("top_p":0)", "top_p", "above 0 to 1, got 0"},
        BadField{R"("top_p":1e-60)", "top_p", "above 0"},
        BadField{R"("top_k":-2)", "top_k", "got -2"},
        BadField{R"("repetition_penalty":0)", "repetition_penalty", "above 0"},
        BadField{R"("n":0)", "n", "from 1 to 128, got 0"},
        BadField{R"("n":1.5)", "n", "must be an integer, not 1.5"},
        BadField{R"("n":18446744073709551615)", "n", "got 18446744073709551615"},
        BadField{R"("max_tokens":0)", "max_tokens", "got 0"},
        BadField{R"("max_tokens":3,"min_tokens":4)", "min_tokens", "at most max_tokens (3), got 4"},
        BadField{R"("stop":"")", "stop", "from 1 to 4096 bytes, got 0"},
        BadField{R"("stop":["a",2])", "stop[1]", "not a number"},
        BadField{R"("stop_token_ids":3)", "stop_token_ids", "must be an array"},
        BadField{R"("stop_token_ids":[4294967296])", "stop_token_ids", "element 0 is 4294967296"},
        BadField{R"("stream":1)", "stream", "must be a boolean, not a number"},
        BadField{R"("stream_options":{"include_usage":true})", "stream_options",
                 "only allowed when 'stream' is true"},
        BadField{R"("stream":true,"stream_options":{"include_usage":"y"})",
                 "stream_options.include_usage", "must be a boolean"},
        BadField{R"("logit_bias":{"x":1})", "logit_bias", "got 'x'"},
        BadField{R"("logit_bias":{"1":101})", "logit_bias.1", "from -100 to 100, got 101"},
        BadField{R"("best_of":2)", "best_of", "is 2 and n is 1"},
        BadField{R"("tools":[{"type":"function"}])", "tools", "not supported"},
        BadField{R"("response_format":{"type":"json_object"})", "response_format", "not supported"},
        BadField{R"("suffix":"x")", "suffix", "not supported"},
        BadField{R"("prompt_logprobs":1)", "prompt_logprobs", "not supported"},
        BadField{R"("use_beam_search":true)", "use_beam_search", "not supported"},
        BadField{R"("include_reasoning":false)", "include_reasoning", "or send true"},
        BadField{R"("kv_transfer_params":{"a":1})", "kv_transfer_params", "not supported"}));

TEST(CompletionRequestTest, KnownFieldsThatAskForNothingPass) {
  const std::string fields =
      R"("tools":[],"tool_choice":"none","response_format":{"type":"text"},"suffix":null,
         "best_of":1,"length_penalty":1.0,"use_beam_search":false,"include_reasoning":true,
         "parallel_tool_calls":true,"metadata":{"a":"b"},"store":false)";
  Parsed(ParseCompletionRequest(Text(fields), {}));
  Parsed(ParseChatRequest(Chat(fields), {}));
}

TEST(CompletionRequestTest, EchoRules) {
  EXPECT_EQ(
      Parsed(ParseCompletionRequest(Text(R"("echo":true,"max_tokens":0)"), {})).output_tokens_max,
      0);
  ExpectRefused(ParseCompletionRequest(Text(R"("echo":true,"logprobs":1)"), {}).status(), "echo",
                "log probabilities of the prompt");
  ExpectRefused(ParseChatRequest(Chat(R"("echo":true)"), {}).status(), "echo", "/v1/completions");
}

TEST(CompletionRequestTest, LogprobRules) {
  EXPECT_EQ(Parsed(ParseCompletionRequest(Text(R"("logprobs":0)"), {})).sampling.top_logprobs, 0);
  EXPECT_EQ(Parsed(ParseChatRequest(Chat(R"("logprobs":true)"), {})).sampling.top_logprobs, 0);
  EXPECT_EQ(Parsed(ParseChatRequest(Chat(R"("logprobs":false,"top_logprobs":0)"), {}))
                .sampling.top_logprobs,
            -1);
  ExpectRefused(ParseChatRequest(Chat(R"("top_logprobs":2)"), {}).status(), "top_logprobs",
                "'logprobs' is true");
  ExpectRefused(ParseChatRequest(Chat(R"("logprobs":true,"top_logprobs":21)"), {}).status(),
                "top_logprobs", "from 0 to 20, got 21");
  ExpectRefused(ParseCompletionRequest(Text(R"("logprobs":true)"), {}).status(), "logprobs",
                "must be an integer, not a boolean");
}

TEST(CompletionRequestTest, BoundsPromptsTimesChoices) {
  ApiLimits limits;
  limits.choices_max = 4;
  ExpectRefused(ParseCompletionRequest(R"({"prompt":["a","b"],"n":3})", limits).status(), "n",
                "at most 4, got 6");
}

TEST(CompletionRequestTest, RefusesWhatIsNoJsonObject) {
  auto message = [](absl::string_view body) {
    return std::string(ParseChatRequest(body, {}).status().message());
  };
  EXPECT_THAT(message(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("{\"a\":1"), HasSubstr("at byte 6 of 6"));
  EXPECT_THAT(message("{} x"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("[]"), HasSubstr("must be a JSON object, not an array"));
  EXPECT_THAT(message("{\"a\":\"\xFF\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("{\"a\":" + std::string(100, '[')), HasSubstr("limit of 64 levels"));
  EXPECT_THAT(message("{\"a\":" + std::string(1000000, '[')), HasSubstr("limit of 64 levels"));
}

TEST(CompletionRequestTest, ReadsAMillionTokenIds) {
  std::string body = R"({"prompt":[0)";
  for (int i = 1; i < 1000000; ++i) absl::StrAppend(&body, ",", i);
  const CompletionRequest request = Parsed(ParseCompletionRequest(body + "]}", {}));
  ASSERT_EQ(request.prompts.size(), 1u);
  ASSERT_EQ(request.prompts[0].tokens.size(), 1000000u);
  EXPECT_EQ(request.prompts[0].tokens.back(), 999999);
}

TEST(TokenizeRequestTest, TakesPromptOrMessages) {
  absl::StatusOr<TokenizeRequest> text =
      ParseTokenizeRequest(R"({"prompt":"a","return_token_strs":true})", {});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->prompt, "a");
  EXPECT_TRUE(text->add_special_tokens && text->return_token_strings && !text->is_chat);
  absl::StatusOr<TokenizeRequest> chat = ParseTokenizeRequest(
      R"({"messages":[{"role":"user","content":"a"}],"add_generation_prompt":false})", {});
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_TRUE(chat->is_chat && !chat->add_generation_prompt && !chat->add_special_tokens);
  EXPECT_EQ(chat->messages.size(), 1u);
  ExpectRefused(ParseTokenizeRequest("{}", {}).status(), "prompt", "required");
  ExpectRefused(ParseTokenizeRequest(R"({"prompt":"a","messages":[]})", {}).status(), "prompt",
                "exclude each other");
}

TEST(DetokenizeRequestTest, TakesTokens) {
  absl::StatusOr<DetokenizeRequest> request = ParseDetokenizeRequest(R"({"tokens":[4,5]})", {});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->tokens, ElementsAre(4, 5));
  ExpectRefused(ParseDetokenizeRequest("{}", {}).status(), "tokens", "required");
  EXPECT_THAT(ParseDetokenizeRequest(R"({"tokens":[]})", {})->tokens, IsEmpty());
}

}  // namespace
}  // namespace longhaul
