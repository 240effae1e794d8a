#include "router/core/service.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/router/core/test_router.h"

namespace longhaul {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kCompletions[] = "/v1/completions";
constexpr char kChat[] = "/v1/chat/completions";

boost::json::value Json(const std::string& text) {
  boost::json::error_code error;
  auto value = boost::json::parse(text, error);
  EXPECT_FALSE(error.failed()) << text;
  return value;
}

std::string Text(const boost::json::value& value) { return std::string(value.as_string()); }

// The JSON of the events of a stream, without [DONE].
std::vector<boost::json::value> Events(const std::string& body) {
  std::vector<boost::json::value> events;
  for (absl::string_view event : absl::StrSplit(body, "\n\n", absl::SkipEmpty())) {
    EXPECT_THAT(std::string(event), StartsWith("data: "));
    event.remove_prefix(6);
    if (event != "[DONE]") events.push_back(Json(std::string(event)));
  }
  return events;
}

void SayHello(FakeWorker::Attempt& attempt) { Speak(attempt, "hello world"); }

TEST(Service, ListsItsModel) {
  TestRouter router(SayHello);
  const auto list = Json(router.Ask("GET", "/v1/models").body);
  EXPECT_EQ(Text(list.at("data").at(0).at("id")), "bytes");
  EXPECT_EQ(list.at("data").at(0).at("max_model_len"), 4096);
  EXPECT_EQ(router.Ask("GET", "/v1/models/bytes").status, 200);
  EXPECT_EQ(router.Ask("GET", "/v1/models/other").status, 404);
  EXPECT_EQ(router.Ask("POST", "/v1/models").status, 405);
  EXPECT_EQ(router.Ask("GET", "/v1/nothing").status, 404);
}

TEST(Service, AnswersACompletion) {
  TestRouter router(SayHello);
  const RawResponse reply =
      router.Post(kCompletions, R"({"prompt":"say it","max_tokens":5})", "x-request-id: abc\r\n");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Header("x-request-id"), "abc");
  EXPECT_EQ(reply.Header("x-longhaul-decode"), "d0");
  EXPECT_EQ(reply.Header("x-longhaul-prefill"), "p0");
  EXPECT_EQ(reply.Header("x-longhaul-path"), "remote");
  EXPECT_EQ(reply.Header("x-longhaul-kv-bytes"), "4096");
  EXPECT_EQ(reply.Header("x-longhaul-kv-ms"), "1.500");
  const auto body = Json(reply.body);
  EXPECT_EQ(Text(body.at("id")), "cmpl-abc");
  EXPECT_EQ(Text(body.at("choices").at(0).at("text")), "hello");
  EXPECT_EQ(Text(body.at("choices").at(0).at("finish_reason")), "length");
  EXPECT_EQ(body.at("usage").at("prompt_tokens"), 6);
  EXPECT_EQ(body.at("usage").at("completion_tokens"), 5);
  EXPECT_EQ(body.at("usage").at("prompt_tokens_details").at("cached_tokens"), 2);
}

TEST(Service, StreamsACompletion) {
  TestRouter router(SayHello);
  const RawResponse reply = router.Post(
      kCompletions,
      R"({"prompt":"p","max_tokens":50,"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_EQ(reply.status, 200);
  EXPECT_TRUE(reply.whole);
  EXPECT_THAT(reply.Header("content-type"), StartsWith("text/event-stream"));
  EXPECT_EQ(reply.Header("x-longhaul-path"), "remote");
  EXPECT_TRUE(absl::EndsWith(reply.body, "data: [DONE]\n\n"));
  const auto events = Events(reply.body);
  std::string text;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    text += Text(events[i].at("choices").at(0).at("text"));
  }
  EXPECT_EQ(text, "hello world");
  EXPECT_EQ(Text(events[events.size() - 2].at("choices").at(0).at("finish_reason")), "stop");
  EXPECT_TRUE(events.back().at("choices").as_array().empty());
  EXPECT_EQ(events.back().at("usage").at("completion_tokens"), 12);  // the end token counts
}

TEST(Service, RendersAChatAndGivesItWhatFits) {
  std::string prompt;
  int64_t output_tokens_max = 0;
  TestRouter router([&](FakeWorker::Attempt& attempt) {
    prompt = PromptText(attempt);
    output_tokens_max = attempt.request.output_tokens_max();
    Speak(attempt, "hi \xF0\x9F\x99\x82");
  });
  const RawResponse reply =
      router.Post(kChat, R"({"model":"bytes","messages":[{"role":"user","content":"yo"}]})");
  EXPECT_EQ(reply.status, 200) << reply.body;
  const auto body = Json(reply.body);
  EXPECT_EQ(Text(body.at("choices").at(0).at("message").at("content")), "hi \xF0\x9F\x99\x82");
  EXPECT_EQ(prompt, "[user]yo#[assistant]");
  EXPECT_EQ(output_tokens_max, 4096 - 20);
  // In a stream, too, a character of four tokens comes whole.
  const RawResponse stream =
      router.Post(kChat, R"({"messages":[{"role":"user","content":"yo"}],"stream":true})");
  const auto events = Events(stream.body);
  EXPECT_EQ(Text(events[0].at("choices").at(0).at("delta").at("role")), "assistant");
  std::string text;
  for (const auto& event : events) {
    const auto* content = event.at("choices").at(0).at("delta").as_object().if_contains("content");
    if (content != nullptr) text += Text(*content);
    EXPECT_THAT(text, Not(HasSubstr("\xEF\xBF\xBD")));
  }
  EXPECT_EQ(text, "hi \xF0\x9F\x99\x82");
}

TEST(Service, AStopStringEndsTheTextAndTheWork) {
  TestRouter router([](FakeWorker::Attempt& attempt) {
    GenerateEvent event;
    for (const char c : std::string("one two three")) event.add_tokens()->set_token(c);
    attempt.Send(event);  // and it would go on
  });
  for (const char* stream : {"false", "true"}) {
    const RawResponse reply = router.Post(
        kCompletions,
        absl::StrCat(R"({"prompt":"p","max_tokens":99,"stop":[" two"],"stream":)", stream, "}"));
    EXPECT_EQ(reply.status, 200);
    EXPECT_THAT(reply.body, HasSubstr(R"("text":"one")"));
    EXPECT_THAT(reply.body, HasSubstr(R"("stop_reason":" two")"));
    EXPECT_THAT(reply.body, Not(HasSubstr("thr")));
  }
  router.Await([](auto& workers) {
    int cancelled = 0;
    for (auto& attempt : workers[0]->attempts) cancelled += attempt->cancelled;
    return cancelled == 2;
  });
}

TEST(Service, ChoicesOfPromptsKeepTheirOrderAndSeeds) {
  std::vector<std::pair<std::string, uint64_t>> asked;
  TestRouter router([&](FakeWorker::Attempt& attempt) {
    asked.emplace_back(PromptText(attempt), attempt.request.sampling().seed());
    Speak(attempt, PromptText(attempt) + "!");
  });
  const RawResponse reply = router.Post(
      kCompletions, R"({"prompt":["a","b"],"n":2,"max_tokens":9,"seed":7,"echo":true})");
  const auto body = Json(reply.body);
  std::vector<std::string> texts;
  for (const auto& choice : body.at("choices").as_array()) texts.push_back(Text(choice.at("text")));
  EXPECT_THAT(texts, ElementsAre("aa!", "aa!", "bb!", "bb!"));
  EXPECT_EQ(body.at("usage").at("prompt_tokens"), 2);
  EXPECT_EQ(body.at("usage").at("completion_tokens"), 12);
  ASSERT_EQ(asked.size(), 4u);
  EXPECT_EQ(asked[0].second, 7u);
  EXPECT_NE(asked[1].second, 7u);
  EXPECT_EQ(asked[2].second, asked[0].second);  // each prompt as if it were alone
  EXPECT_EQ(asked[3].second, asked[1].second);
}

TEST(Service, EchoAloneNeedsNoWorker) {
  TestRouter router([](FakeWorker::Attempt&) { ADD_FAILURE() << "was asked"; });
  const RawResponse reply =
      router.Post(kCompletions, R"({"prompt":"back to me","max_tokens":0,"echo":true})");
  EXPECT_EQ(Text(Json(reply.body).at("choices").at(0).at("text")), "back to me");
}

TEST(Service, LogprobsAndTokenIdsInBothShapes) {
  TestRouter router(SayHello);
  const auto text = Json(router
                             .Post(kCompletions, R"({"prompt":"p","max_tokens":3,"logprobs":1,
                                                     "return_token_ids":true})")
                             .body)
                        .at("choices")
                        .at(0);
  EXPECT_EQ(boost::json::serialize(text.at("logprobs").at("tokens")), R"(["h","e","l"])");
  EXPECT_EQ(boost::json::serialize(text.at("logprobs").at("text_offset")), "[0,1,2]");
  EXPECT_EQ(boost::json::serialize(text.at("token_ids")), "[104,101,108]");
  const auto chat = Json(router
                             .Post(kChat, R"({"messages":[{"role":"user","content":"p"}],
                                   "max_tokens":20,"logprobs":true,"top_logprobs":1})")
                             .body)
                        .at("choices")
                        .at(0);
  // The end token is no text.
  EXPECT_EQ(chat.at("logprobs").at("content").as_array().size(), 11u);
  EXPECT_EQ(Text(chat.at("logprobs").at("content").at(0).at("token")), "h");
}

TEST(Service, RefusesWhatIsWrongBeforeAnyWork) {
  TestRouter router([](FakeWorker::Attempt&) { ADD_FAILURE() << "was asked"; });
  const auto code = [&](const char* path, const std::string& body, int status) {
    const RawResponse reply = router.Post(path, body);
    EXPECT_EQ(reply.status, status) << reply.body;
    const auto error = Json(reply.body).at("error");
    return error.at("code").is_string() ? Text(error.at("code")) : "";
  };
  code(kCompletions, "{nonsense", 400);
  code(kCompletions, R"({"prompt":""})", 400);
  code(kCompletions, R"({"prompt":[257]})", 400);
  EXPECT_EQ(code(kCompletions, R"({"model":"gpt","prompt":"p"})", 404), "model_not_found");
  const std::string longer(5000, 'x');
  for (const char* stream : {"false", "true"}) {
    EXPECT_EQ(code(kCompletions,
                   absl::StrCat(R"({"prompt":")", longer, R"(","stream":)", stream, "}"), 400),
              "context_length_exceeded");
  }
  const RawResponse reply = router.Post(kCompletions, R"({"prompt":"p","max_tokens":4096})");
  EXPECT_THAT(reply.body, HasSubstr("4096"));
  EXPECT_THAT(reply.body, HasSubstr("4097"));
  EXPECT_EQ(router.Ask("GET", kCompletions).status, 405);
}

TEST(Service, AnEarlyFailureOfAStreamHasItsStatus) {
  TestRouter router(
      [](FakeWorker::Attempt& attempt) { attempt.End(absl::ResourceExhaustedError("no blocks")); });
  const RawResponse reply = router.Post(kCompletions, R"({"prompt":"p","stream":true})");
  EXPECT_EQ(reply.status, 429);
  EXPECT_NE(reply.Header("retry-after"), "");
  EXPECT_THAT(reply.body, HasSubstr("rate_limit_error"));
}

TEST(Service, AFailureInAStreamIsAnEventAndNeverLooksWhole) {
  TestRouter router([](FakeWorker::Attempt& attempt) {
    GenerateEvent event;
    event.add_tokens()->set_token('a');
    attempt.Send(event);
    attempt.End(absl::InternalError("it broke"));
  });
  const RawResponse reply = router.Post(kCompletions, R"({"prompt":"p","stream":true})");
  EXPECT_EQ(reply.status, 200);
  EXPECT_FALSE(reply.whole);
  EXPECT_THAT(reply.body, Not(HasSubstr("[DONE]")));
  const auto events = Events(reply.body);
  EXPECT_EQ(Text(events[0].at("choices").at(0).at("text")), "a");
  EXPECT_THAT(Text(events.back().at("error").at("message")), HasSubstr("it broke"));
}

TEST(Service, ALostWorkerIsNotSeenInTheStream) {
  TestRouter router(
      [](FakeWorker::Attempt& attempt) {
        const int emitted = attempt.request.tokens_size() - attempt.request.prompt_tokens();
        if (emitted > 0) return Speak(attempt, std::string("hello world").substr(emitted));
        GenerateEvent event;
        for (const char c : std::string("hello")) event.add_tokens()->set_token(c);
        attempt.Send(event);
        attempt.End(absl::UnavailableError("killed"));
      },
      2);
  const RawResponse reply =
      router.Post(kCompletions, R"({"prompt":"p","max_tokens":50,"stream":true})");
  std::string text;
  for (const auto& event : Events(reply.body)) text += Text(event.at("choices").at(0).at("text"));
  EXPECT_EQ(text, "hello world");
  EXPECT_TRUE(reply.whole);
}

TEST(Service, AClientThatLeavesCancelsItsWork) {
  TestRouter router([](FakeWorker::Attempt& attempt) {
    GenerateEvent event;
    event.add_tokens()->set_token('a');
    attempt.Send(event);
  });
  {
    RawClient client(router.port());
    client.Send(TestRouter::Request("POST", kCompletions, R"({"prompt":"p","stream":true})"));
    client.ReadUntil("data: ");
  }
  router.Await([](auto& workers) {
    return workers[0]->attempts.size() == 1 && workers[0]->attempts[0]->cancelled;
  });
  {
    RawClient client(router.port());
    client.Send(TestRouter::Request("POST", kCompletions, R"({"prompt":"p"})"));
    router.Await([](auto& workers) { return workers[0]->attempts.size() == 2; });
  }
  router.Await([](auto& workers) { return workers[0]->attempts[1]->cancelled; });
}

TEST(Service, TokenizesAndBack) {
  TestRouter router(SayHello);
  const auto tokens = Json(router.Post("/tokenize", R"({"prompt":"h\u00e9"})").body);
  EXPECT_EQ(boost::json::serialize(tokens.at("tokens")), "[104,195,169]");
  EXPECT_EQ(tokens.at("max_model_len"), 4096);
  const auto chat =
      Json(router.Post("/tokenize", R"({"messages":[{"role":"user","content":"x"}]})").body);
  EXPECT_EQ(chat.at("count"), 6 + 1 + 1 + 11);
  EXPECT_EQ(Text(Json(router.Post("/detokenize", R"({"tokens":[104,195,169]})").body).at("prompt")),
            "h\u00e9");
  EXPECT_EQ(router.Post("/detokenize", R"({"tokens":[999]})").status, 400);
}

TEST(Service, ALargeBodyTakesTheTextLoop) {
  TestRouter router(SayHello);
  const std::string padding(100'000, ' ');
  EXPECT_EQ(
      router.Post(kCompletions, absl::StrCat(R"({"prompt":"p",)", padding, R"("n":1})")).status,
      200);
}

TEST(Service, ApiKeysGuardTheApiAndNotTheProbes) {
  RouterOptions options;
  options.api_keys = "# of the team\nsecret\n";
  TestRouter router(SayHello, 1, std::move(options));
  EXPECT_EQ(router.Post(kCompletions, R"({"prompt":"p"})").status, 401);
  EXPECT_EQ(
      router.Post(kCompletions, R"({"prompt":"p"})", "Authorization: Bearer wrong\r\n").status,
      401);
  EXPECT_EQ(
      router.Post(kCompletions, R"({"prompt":"p"})", "Authorization: Bearer secret\r\n").status,
      200);
  EXPECT_EQ(router.Ask("GET", "/readyz").status, 200);
}

TEST(Service, CountsWhatItDid) {
  TestRouter router(SayHello);
  router.Post(kCompletions, R"({"prompt":"p","max_tokens":5})");
  router.Post(kCompletions, "{");
  const std::string text = router.Ask("GET", "/metrics").body;
  EXPECT_THAT(text, HasSubstr(R"(longhaul_requests_total{endpoint="completions",outcome="ok"} 1)"));
  EXPECT_THAT(text,
              HasSubstr(R"(longhaul_requests_total{endpoint="completions",outcome="refused"} 1)"));
  EXPECT_THAT(text, HasSubstr("longhaul_requests_in_flight 0"));
  EXPECT_THAT(text, HasSubstr("longhaul_output_tokens_total 5"));
  EXPECT_THAT(text, HasSubstr("longhaul_workers{"));
}

TEST(RouterApp, SaysWhyItCannotStart) {
  const auto none = [](std::shared_ptr<Loop>) { return ClusterMembers(); };
  EXPECT_THAT(
      std::string(RouterApp::Start({}, {ByteVocabulary(), 4096, {}}, none).status().message()),
      HasSubstr("at least one decode worker"));
  RouterOptions options;
  options.policy = "best";
  EXPECT_FALSE(RouterApp::Start(options, {ByteVocabulary(), 4096, {}}, none).ok());
  options = {};
  options.api_keys = "# nobody\n";
  EXPECT_THAT(
      std::string(RouterApp::Start(options, {ByteVocabulary(), 4096, {}}, none).status().message()),
      HasSubstr("API key"));
  TestRouter running(SayHello);
  EXPECT_TRUE(running.app().Ready().ok());
  running.app().Shutdown(0);
  EXPECT_THAT(std::string(running.app().Ready().message()), HasSubstr("shutting down"));
}

}  // namespace
}  // namespace longhaul
