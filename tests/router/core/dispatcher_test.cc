#include "router/core/dispatcher.h"

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "common/runtime/virtual_loop.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/api/error.h"
#include "tests/router/core/fake_worker.h"

namespace longhaul {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Listener final : GenerateListener {
  void OnStart(const GenerateStart& start) override {
    EXPECT_TRUE(tokens.empty());
    ++starts;
    last_start = start;
    if (cancel_on_start) generation.reset();
  }
  void OnTokens(absl::Span<const SampledToken> sampled, bool ends_with_stop) override {
    EXPECT_EQ(starts, 1);
    for (const auto& token : sampled) tokens.push_back(token.token);
  }
  void OnEnd(const GenerateEnd& end) override {
    ++ends;
    last_end = end;
    generation.reset();
  }
  void OnError(const absl::Status& status) override {
    ++ends;
    error = status;
  }
  std::unique_ptr<Generation> generation;
  int starts = 0, ends = 0;
  bool cancel_on_start = false;
  GenerateStart last_start;
  GenerateEnd last_end;
  absl::Status error;
  std::vector<int32_t> tokens;
};

class DispatcherTest : public ::testing::Test {
 protected:
  void Build(int decode, int prefill = 1, DispatcherOptions options = {},
             ClusterOptions cluster_options = {}) {
    ClusterMembers members;
    for (int i = 0; i < decode; ++i) {
      const std::string name = "d" + std::to_string(i);
      decode_.push_back(std::make_unique<FakeWorker>(name, "decode", 100 + i));
      members.decode.push_back(
          {name, name + ":1", std::make_unique<FakeWorkerClient>(&loop_, decode_.back().get())});
    }
    for (int i = 0; i < prefill; ++i) {
      const std::string name = "p" + std::to_string(i);
      prefill_.push_back(std::make_unique<FakeWorker>(name, "prefill", 200 + i));
      members.prefill.push_back(
          {name, name + ":1", std::make_unique<FakeWorkerClient>(&loop_, prefill_.back().get())});
    }
    cluster_ = std::make_unique<Cluster>(&loop_, cluster_options, std::move(members));
    policy_ = MakePolicy("round-robin", {}).value();
    dispatcher_ = std::make_unique<Dispatcher>(&loop_, cluster_.get(), policy_.get(), options);
    cluster_->Start();
    Settle();
  }
  void TearDown() override { ExpectNoLoad(); }

  // Runs what is due now; the cluster's periodic tick never ends.
  void Settle() { loop_.RunFor(1000); }
  // Time in which the living workers report.
  void Pass(int64_t us) {
    for (int64_t passed = 0; passed < us; passed += 100'000) {
      for (auto& worker : decode_) worker->Report();
      for (auto& worker : prefill_) worker->Report();
      loop_.RunFor(100'000);
    }
  }

  GenerateCall Call(int prompt = 40, int output = 10) {
    GenerateCall call;
    call.request_id = "r";
    call.prompt.resize(prompt);
    std::iota(call.prompt.begin(), call.prompt.end(), 0);
    call.output_tokens_max = output;
    call.sampling.seed = 7;
    return call;
  }
  void Submit(Listener& listener, GenerateCall call) {
    listener.generation = dispatcher_->Submit(std::move(call), &listener);
    EXPECT_EQ(listener.ends, 0);
    Settle();
  }
  FakeWorker::Attempt& Last(int worker) { return *decode_[worker]->attempts.back(); }

  void ExpectNoLoad() {
    ASSERT_NE(cluster_, nullptr);
    for (const auto* workers : {&cluster_->View().decode, &cluster_->View().prefill}) {
      for (const WorkerView& worker : *workers) {
        EXPECT_EQ(worker.load.requests, 0) << worker.name;
        EXPECT_EQ(worker.load.kv_tokens, 0) << worker.name;
        EXPECT_NEAR(worker.load.predicted_us, 0, 1e-6) << worker.name;
      }
    }
    EXPECT_EQ(dispatcher_->stats().requests_now, 0);
    for (auto& worker : decode_) EXPECT_EQ(worker->open_attempts(), 0);
    const DispatcherStats& stats = dispatcher_->stats();
    EXPECT_EQ(stats.requests, stats.ended + stats.failed + stats.cancelled);
  }

  static std::vector<int32_t> Output(int count) {
    std::vector<int32_t> tokens(count);
    std::iota(tokens.begin(), tokens.end(), 1000);
    return tokens;
  }

  VirtualLoop loop_;
  std::vector<std::unique_ptr<FakeWorker>> decode_, prefill_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

TEST_F(DispatcherTest, CarriesAGenerationFromPlacementToItsEnd) {
  Build(1);
  Listener listener;
  Submit(listener, Call(40, 10));
  ASSERT_EQ(decode_[0]->attempts.size(), 1u);
  const GenerateRequest& request = Last(0).request;
  EXPECT_EQ(request.tokens_size(), 40);
  EXPECT_EQ(request.prompt_tokens(), 40);
  EXPECT_EQ(request.output_tokens_max(), 10);
  EXPECT_EQ(request.sampling().seed(), 7u);
  EXPECT_THAT(request.prefill_addresses(), ElementsAre("p0:1"));
  const WorkerLoad during = cluster_->View().decode[0].load;
  EXPECT_EQ(during.requests, 1);
  EXPECT_EQ(during.kv_tokens, 50);
  EXPECT_GT(cluster_->View().prefill[0].load.predicted_us, 0);
  Last(0).Tokens(1);
  EXPECT_EQ(cluster_->View().prefill[0].load.predicted_us, 0);
  Last(0).Tokens(9, true);
  EXPECT_EQ(listener.ends, 1);
  EXPECT_TRUE(listener.error.ok());
  EXPECT_EQ(listener.tokens, Output(10));
  EXPECT_EQ(listener.last_start.decode_name, "d0");
  EXPECT_EQ(listener.last_start.prefill_name, "p0");
  EXPECT_EQ(listener.last_start.path, "remote");
  EXPECT_EQ(listener.last_start.kv_bytes, 4096);
  EXPECT_EQ(listener.last_end.reason, GenerateEnd::Reason::kLength);
}

// The worker dies after `emitted` tokens; the client must not notice.
class DispatcherReplay : public DispatcherTest, public ::testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(After, DispatcherReplay, ::testing::Values(0, 1, 5, 9, 10));

TEST_P(DispatcherReplay, ReplaysPromptAndEmittedTokensElsewhere) {
  const int emitted = GetParam();
  Build(2);
  Listener listener;
  Submit(listener, Call(40, 10));
  ASSERT_EQ(decode_[0]->attempts.size(), 1u);
  if (emitted > 0) Last(0).Tokens(emitted);
  decode_[0]->Die();
  Settle();
  if (emitted < 10) {
    ASSERT_EQ(decode_[1]->attempts.size(), 1u);
    const GenerateRequest& request = Last(1).request;
    EXPECT_EQ(request.prompt_tokens(), 40);
    EXPECT_EQ(request.tokens_size(), 40 + emitted);
    EXPECT_EQ(request.output_tokens_max(), 10);
    EXPECT_EQ(request.sampling().seed(), 7u);
    for (int i = 0; i < emitted; ++i) EXPECT_EQ(request.tokens(40 + i), 1000 + i);
    Last(1).Tokens(10 - emitted, true);
    EXPECT_EQ(listener.last_end.attempts, 2);
  }
  EXPECT_EQ(listener.ends, 1);
  EXPECT_TRUE(listener.error.ok()) << listener.error;
  EXPECT_EQ(listener.tokens, Output(10));
  EXPECT_EQ(listener.starts, 1);
}

TEST_F(DispatcherTest, TheEndSurvivesABrokenStreamAfterIt) {
  Build(1);
  Listener listener;
  Submit(listener, Call(40, 10));
  GenerateEvent event;
  event.add_tokens()->set_token(5);
  event.mutable_finished()->set_reason(GenerateEvent::Finished::STOP_TOKEN);
  event.mutable_finished()->set_stop_token(5);
  Last(0).Send(event);
  decode_[0]->Die();
  EXPECT_EQ(listener.ends, 1);
  EXPECT_TRUE(listener.error.ok());
  EXPECT_EQ(listener.last_end.stop_token, 5);
}

TEST_F(DispatcherTest, WaitsForAWorkerToComeBackBeforeGivingUpAReplay) {
  Build(1);
  Listener listener;
  Submit(listener, Call());
  Last(0).Tokens(3);
  decode_[0]->Die();
  Pass(1'000'000);
  EXPECT_EQ(listener.ends, 0);
  decode_[0]->status.set_incarnation(999);
  decode_[0]->reachable = true;
  Pass(3'000'000);
  ASSERT_EQ(decode_[0]->attempts.size(), 2u);
  EXPECT_EQ(Last(0).request.tokens_size(), 43);
  Last(0).Tokens(7, true);
  EXPECT_EQ(listener.tokens, Output(10));
}

TEST_F(DispatcherTest, AReplayThatFindsNobodyFailsWithUnavailable) {
  Build(1);
  Listener listener;
  Submit(listener, Call());
  decode_[0]->Die();
  Pass(11'000'000);
  EXPECT_EQ(listener.ends, 1);
  EXPECT_TRUE(absl::IsUnavailable(listener.error));
  EXPECT_GT(ApiErrorFromStatus(listener.error).retry_after_s, 0);
}

TEST_F(DispatcherTest, AttemptsAreBounded) {
  Build(5);
  for (auto& worker : decode_) {
    worker->on_generate = [](FakeWorker::Attempt& attempt) {
      attempt.End(absl::AbortedError("poison"));
    };
  }
  Listener listener;
  Submit(listener, Call());
  EXPECT_EQ(listener.ends, 1);
  EXPECT_TRUE(absl::IsUnavailable(listener.error));
  int attempts = 0;
  for (auto& worker : decode_) attempts += static_cast<int>(worker->attempts.size());
  EXPECT_EQ(attempts, 3);
}

TEST_F(DispatcherTest, TheRetryBudgetBoundsRepeatedWork) {
  DispatcherOptions options;
  options.retry_reserve = 2;
  Build(2, 1, options);
  decode_[0]->on_generate = [](FakeWorker::Attempt& attempt) {
    attempt.End(absl::UnavailableError("sick"));
  };
  decode_[1]->on_generate = [](FakeWorker::Attempt& attempt) { attempt.Tokens(10, true); };
  int failed = 0;
  for (int i = 0; i < 200; ++i) {
    Listener listener;
    Submit(listener, Call());
    failed += !listener.error.ok();
  }
  const DispatcherStats& stats = dispatcher_->stats();
  EXPECT_LE(stats.placed, 200 * 1.1 + 3);
  EXPECT_GT(stats.replays, 15);
  EXPECT_EQ(stats.replays_unaffordable, failed);
}

TEST_F(DispatcherTest, TheRequestsOwnFaultIsNotReplayed) {
  for (const auto& status : {absl::InvalidArgumentError("bad token"), absl::InternalError("bug"),
                             absl::DeadlineExceededError("late")}) {
    decode_.clear();
    prefill_.clear();
    dispatcher_.reset();
    cluster_.reset();
    Build(2);
    Listener listener;
    Submit(listener, Call());
    Last(0).End(status);
    Settle();
    EXPECT_EQ(listener.ends, 1);
    EXPECT_EQ(listener.error, status);
    EXPECT_TRUE(decode_[1]->attempts.empty());
  }
}

TEST_F(DispatcherTest, AFullWorkerIsSwappedOnceThenTheClientIsToldWhenToComeBack) {
  Build(3);
  Listener listener;
  Submit(listener, Call());
  Last(0).End(absl::ResourceExhaustedError("no KV blocks"));
  Settle();
  ASSERT_EQ(decode_[1]->attempts.size() + decode_[2]->attempts.size(), 1u);
  EXPECT_EQ(listener.ends, 0);
  for (int i : {1, 2}) {
    if (!decode_[i]->attempts.empty()) Last(i).End(absl::ResourceExhaustedError("no KV blocks"));
  }
  Settle();
  EXPECT_EQ(listener.ends, 1);
  EXPECT_TRUE(absl::IsResourceExhausted(listener.error));
  EXPECT_EQ(ApiErrorFromStatus(listener.error).http_status, 429);
}

TEST_F(DispatcherTest, CancelStopsTheWorkAtEveryPhase) {
  Build(1);
  {
    Listener listener;  // before it was placed
    listener.generation = dispatcher_->Submit(Call(), &listener);
    listener.generation.reset();
    Settle();
    EXPECT_TRUE(decode_[0]->attempts.empty());
  }
  {
    Listener listener;  // before the first token
    Submit(listener, Call());
    listener.generation.reset();
    EXPECT_TRUE(Last(0).cancelled);
    ExpectNoLoad();
  }
  {
    Listener listener;  // between tokens
    Submit(listener, Call());
    Last(0).Tokens(2);
    listener.generation.reset();
    EXPECT_TRUE(Last(0).cancelled);
  }
  {
    Listener listener;  // from inside a callback
    listener.cancel_on_start = true;
    Submit(listener, Call());
    Last(0).Tokens(2);
    EXPECT_TRUE(Last(0).cancelled);
    EXPECT_TRUE(listener.tokens.empty());
    EXPECT_EQ(listener.ends, 0);
  }
  {
    Listener listener;  // while it waits for a worker to replay on
    Submit(listener, Call());
    decode_[0]->Die();
    Pass(500'000);
    listener.generation.reset();
    decode_[0]->reachable = true;
    const size_t attempts = decode_[0]->attempts.size();
    Pass(3'000'000);
    EXPECT_EQ(decode_[0]->attempts.size(), attempts);
  }
  EXPECT_EQ(dispatcher_->stats().cancelled, 5);
}

TEST_F(DispatcherTest, TheDeadlineEndsTheWorkAndShrinksOnReplay) {
  Build(2);
  Listener listener;
  GenerateCall call = Call();
  call.deadline_us = 5'000'000;
  Submit(listener, call);
  EXPECT_NEAR(static_cast<double>(Last(0).request.deadline_us()), 5e6, 1e4);
  Pass(2'000'000);
  Last(0).End(absl::UnavailableError("gone"));
  Settle();
  ASSERT_EQ(decode_[1]->attempts.size(), 1u);
  EXPECT_NEAR(static_cast<double>(Last(1).request.deadline_us()), 3e6, 1e5);
  Pass(4'000'000);
  EXPECT_TRUE(absl::IsDeadlineExceeded(listener.error));
  EXPECT_TRUE(Last(1).cancelled);
}

TEST_F(DispatcherTest, RefusesWithoutReadyWorkers) {
  Build(1);
  decode_[0]->Die();
  Settle();
  Listener listener;
  Submit(listener, Call());
  EXPECT_TRUE(absl::IsUnavailable(listener.error));
  EXPECT_THAT(std::string(listener.error.message()), HasSubstr("connection reset"));
  EXPECT_EQ(ApiErrorFromStatus(listener.error).http_status, 503);
}

TEST_F(DispatcherTest, TooLongIsRefusedWithBothNumbersAndTheDefaultTakesWhatFits) {
  Build(1);  // 8000 tokens
  Listener listener;
  Submit(listener, Call(7990, 11));
  EXPECT_EQ(ApiErrorFromStatus(listener.error).code, "context_length_exceeded");
  EXPECT_THAT(std::string(listener.error.message()), HasSubstr("8000"));
  EXPECT_THAT(std::string(listener.error.message()), HasSubstr("8001"));
  Listener prompt;
  Submit(prompt, Call(8000, 11));
  EXPECT_THAT(std::string(prompt.error.message()), HasSubstr("the prompt has 8000"));
  Listener whole;
  GenerateCall call = Call(7990);
  call.output_tokens_max.reset();
  Submit(whole, call);
  EXPECT_EQ(Last(0).request.output_tokens_max(), 10);
  whole.generation.reset();
}

TEST_F(DispatcherTest, RefusesAboveItsOwnLimit) {
  DispatcherOptions options;
  options.requests_max = 2;
  Build(1, 1, options);
  Listener a, b, c;
  Submit(a, Call());
  Submit(b, Call());
  Submit(c, Call());
  EXPECT_TRUE(absl::IsResourceExhausted(c.error));
  a.generation.reset();
  b.generation.reset();
}

TEST_F(DispatcherTest, ASilentWorkersRequestsMove) {
  Build(2);
  Listener listener;
  Submit(listener, Call());
  Last(0).Tokens(4);
  for (int i = 0; i < 160; ++i) {  // d0 says nothing, but its stream stays open
    decode_[1]->Report();
    prefill_[0]->Report();
    loop_.RunFor(100'000);
  }
  EXPECT_TRUE(Last(0).cancelled);
  ASSERT_EQ(decode_[1]->attempts.size(), 1u);
  Last(1).Tokens(6, true);
  EXPECT_EQ(listener.tokens, Output(10));
}

TEST_F(DispatcherTest, ALateEventOfAnEarlierAttemptChangesNothing) {
  Build(2);
  Listener listener;
  Submit(listener, Call());
  auto first = decode_[0]->attempts.back();
  first->Tokens(2);
  first->End(absl::UnavailableError("gone"));
  Settle();
  GenerateEvent stray;
  stray.add_tokens()->set_token(77);
  first->on_event(stray);
  first->done(absl::InternalError("stray"));
  Last(1).Tokens(8, true);
  EXPECT_EQ(listener.tokens, Output(10));
  EXPECT_EQ(listener.ends, 1);
}

TEST_F(DispatcherTest, OutlivedByItsGenerations) {
  Build(1);
  auto listener = std::make_unique<Listener>();
  Submit(*listener, Call());
  dispatcher_.reset();
  listener.reset();
  dispatcher_ =
      std::make_unique<Dispatcher>(&loop_, cluster_.get(), policy_.get(), DispatcherOptions{});
}

}  // namespace
}  // namespace longhaul
