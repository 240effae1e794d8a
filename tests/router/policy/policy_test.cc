#include "router/policy/policy.h"

#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/policy/prefix_index.h"

namespace longhaul {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

WorkerView Worker(const std::string& name, uint64_t incarnation) {
  WorkerView worker;
  worker.name = name;
  worker.incarnation = incarnation;
  worker.ready = true;
  worker.fingerprint_key = 7;
  worker.blocks_total = 1000;
  worker.context_tokens_max = 16000;
  worker.cost = CostModel::FromCoefficients({100, 10, 0.001, 1000, 100, 0.1});
  return worker;
}

ClusterView Cluster(int prefill, int decode) {
  ClusterView view;
  for (int i = 0; i < decode; ++i) view.decode.push_back(Worker("d" + std::to_string(i), 100 + i));
  for (int i = 0; i < prefill; ++i)
    view.prefill.push_back(Worker("p" + std::to_string(i), 200 + i));
  return view;
}

struct Prompt {
  explicit Prompt(int64_t tokens, int32_t first = 0) {
    std::vector<int32_t> ids(tokens);
    std::iota(ids.begin(), ids.end(), first);
    chain = ChainOf(ids, 16, 0);
    facts.prompt_tokens = tokens;
    facts.output_tokens_max = 16;
    facts.prefix_chain = chain;
  }
  std::vector<Hash128> chain;
  RequestFacts facts;
};

std::unique_ptr<Policy> Make(absl::string_view name, PolicyOptions options = {}) {
  return MakePolicy(name, options).value();
}

Placement Place(Policy& policy, const RequestFacts& facts, const ClusterView& view,
                int64_t now_us = 0) {
  auto choice = policy.Choose(facts, view, now_us);
  if (auto* refusal = std::get_if<Refusal>(&choice)) {
    ADD_FAILURE() << refusal->message;
    return {};
  }
  const auto placement = std::get<Placement>(choice);
  policy.Placed(facts, view, placement, now_us);
  return placement;
}

Refusal Refused(Policy& policy, const RequestFacts& facts, const ClusterView& view) {
  auto choice = policy.Choose(facts, view, 0);
  if (!std::holds_alternative<Refusal>(choice)) {
    ADD_FAILURE() << "placed";
    return {};
  }
  return std::get<Refusal>(choice);
}

class EveryPolicy : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Names, EveryPolicy,
                         ::testing::Values("round-robin", "least-loaded", "prefix-affinity",
                                           "context-length"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(EveryPolicy, PlacesOnlyOnReadyWorkersOfOneFingerprint) {
  auto policy = Make(GetParam());
  auto view = Cluster(3, 3);
  view.decode[0].ready = false;
  view.decode[2].ready = false;
  view.prefill[0].fingerprint_key = 8;
  view.prefill[1].ready = false;
  for (int i = 0; i < 10; ++i) {
    const Placement placement = Place(*policy, Prompt(100, i * 1000).facts, view);
    EXPECT_EQ(placement.decode, 1);
    EXPECT_THAT(placement.prefill, ElementsAre(2));
  }
}

TEST_P(EveryPolicy, AvoidsTheIncarnationsThatFailedTheRequest) {
  auto policy = Make(GetParam());
  const auto view = Cluster(1, 2);
  Prompt prompt(100);
  const uint64_t failed[] = {101};
  prompt.facts.avoid = failed;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Place(*policy, prompt.facts, view).decode, 0);
  const uint64_t both[] = {100, 101};
  prompt.facts.avoid = both;
  const Refusal refusal = Refused(*policy, prompt.facts, view);
  EXPECT_EQ(refusal.reason, Refusal::Reason::kNoWorker);
  EXPECT_THAT(refusal.message, HasSubstr("failed this request"));
}

TEST_P(EveryPolicy, NoReadyWorkerIsSaidWithNamesAndReasons) {
  auto policy = Make(GetParam());
  auto view = Cluster(1, 2);
  view.decode[0].ready = view.decode[1].ready = false;
  view.decode[0].unready_why = "not connected";
  view.decode[1].unready_why = "draining";
  const Refusal refusal = Refused(*policy, Prompt(10).facts, view);
  EXPECT_EQ(refusal.reason, Refusal::Reason::kNoWorker);
  EXPECT_THAT(refusal.message, HasSubstr("d0 (not connected) d1 (draining)"));
  EXPECT_GT(refusal.retry_after_us, 0);
}

TEST_P(EveryPolicy, WithoutPrefillWorkersTheDecodeWorkerComputesIfAllowed) {
  auto view = Cluster(1, 1);
  view.prefill[0].ready = false;
  auto policy = Make(GetParam());
  EXPECT_TRUE(Place(*policy, Prompt(100).facts, view).prefill.empty());
  PolicyOptions strict;
  strict.local_prefill = false;
  policy = Make(GetParam(), strict);
  EXPECT_EQ(Refused(*policy, Prompt(100).facts, view).reason, Refusal::Reason::kNoWorker);
}

TEST_P(EveryPolicy, WhatCanNeverFitIsRefusedForGoodWithNumbers) {
  auto policy = Make(GetParam());
  auto view = Cluster(1, 2);
  view.decode[1].blocks_total = 100;  // 1600 tokens
  Prompt prompt(15984);               // + 16 = 16000, exactly the first worker's
  EXPECT_EQ(Place(*policy, prompt.facts, view).decode, 0);
  prompt.facts.output_tokens_max = 17;
  const Refusal refusal = Refused(*policy, prompt.facts, view);
  EXPECT_EQ(refusal.reason, Refusal::Reason::kNeverFits);
  EXPECT_EQ(refusal.retry_after_us, 0);
  EXPECT_EQ(refusal.sequence_tokens_max, 16000);
  EXPECT_THAT(refusal.message, HasSubstr("16001"));
}

TEST_P(EveryPolicy, RefusesEarlyWhenTheWaitIsTooLong) {
  auto policy = Make(GetParam());
  auto view = Cluster(1, 1);
  view.prefill[0].queue_predicted_us = 55e6;
  view.prefill[0].requests_queued = 100'000;
  Place(*policy, Prompt(100).facts, view);
  view.prefill[0].load.unreported_us = view.prefill[0].load.predicted_us = 15e6;
  const Refusal refusal = Refused(*policy, Prompt(100, 5000).facts, view);
  EXPECT_EQ(refusal.reason, Refusal::Reason::kOverloaded);
  EXPECT_EQ(refusal.retry_after_us, 10'000'000);
  EXPECT_THAT(refusal.message, HasSubstr("70.0 s"));
}

// The workers let it pass them at the next chunk's end.
TEST_P(EveryPolicy, AShortPromptIsNotRefusedForTheLongOnesBeforeIt) {
  auto policy = Make(GetParam());
  auto view = Cluster(1, 1);
  view.prefill[0].queue_predicted_us = 200e6;
  view.prefill[0].requests_running = 8;
  const Prompt small(100);
  const Placement placement = Place(*policy, small.facts, view);
  EXPECT_DOUBLE_EQ(placement.wait_us, 8 * view.prefill[0].cost.PrefillUs(100, 0));
  view.prefill[0].cost = CostModel::FromCoefficients({100, 1000, 0.001, 1000, 100, 0.1});
  EXPECT_EQ(Refused(*policy, Prompt(15000).facts, view).reason, Refusal::Reason::kOverloaded);
}

TEST_P(EveryPolicy, PromptsSpillToTheDecodeWorkerWhenThatIsSooner) {
  PolicyOptions options;
  options.spill_slowdown = 2;
  auto policy = Make(GetParam(), options);
  auto view = Cluster(1, 1);
  const double alone_us = view.prefill[0].cost.PrefillUs(100, 0);
  view.prefill[0].requests_running = 10;
  view.decode[0].prompt_share = 0.5;
  const auto spills = [&] {
    auto choice = policy->Choose(Prompt(100).facts, view, 0);
    return std::get<Placement>(choice).prefill.empty();
  };
  view.prefill[0].queue_predicted_us = 0.9 * alone_us;  // 1.9 times its own time
  EXPECT_FALSE(spills());
  view.prefill[0].queue_predicted_us = 1.5 * alone_us;  // 2.5 times, here twice
  EXPECT_TRUE(spills());
  view.decode[0].prompt_share = 0.3;  // here 3.3 times
  EXPECT_FALSE(spills());
  view.decode[0].prompt_share = 0;  // nothing is left of a step
  EXPECT_FALSE(spills());
  view.decode[0].prompt_share = 0.5;
  view.decode[0].queue_predicted_us = alone_us;
  EXPECT_FALSE(spills());
  view.prefill[0].queue_predicted_us = 9 * alone_us;
  EXPECT_TRUE(spills());
  policy = Make(GetParam());
  EXPECT_FALSE(spills()) << "only where it is asked for";
}

TEST_P(EveryPolicy, RefusesWhenEveryDecodeWorkerIsFull) {
  PolicyOptions options;
  options.requests_per_decode_max = 4;
  auto policy = Make(GetParam(), options);
  auto view = Cluster(1, 2);
  view.decode[0].requests_running = 4;
  view.decode[1].load.requests = 3;
  EXPECT_EQ(Place(*policy, Prompt(100).facts, view).decode, 1);
  view.decode[1].load.requests = 4;
  EXPECT_EQ(Refused(*policy, Prompt(100).facts, view).reason, Refusal::Reason::kOverloaded);
}

TEST(MakePolicy, NamesTheChoices) {
  EXPECT_THAT(std::string(MakePolicy("best", {}).status().message()), HasSubstr("round-robin"));
}

TEST(RoundRobin, VisitsAllInTurn) {
  auto policy = Make("round-robin");
  const auto view = Cluster(3, 2);
  std::map<int, int> decode, prefill;
  for (int i = 0; i < 12; ++i) {
    const Placement placement = Place(*policy, Prompt(100).facts, view);
    ++decode[placement.decode];
    ++prefill[placement.prefill[0]];
    EXPECT_EQ(std::set<int>(placement.prefill.begin(), placement.prefill.end()).size(), 3u);
  }
  EXPECT_EQ(decode, (std::map<int, int>{{0, 6}, {1, 6}}));
  EXPECT_EQ(prefill, (std::map<int, int>{{0, 4}, {1, 4}, {2, 4}}));
}

TEST(LeastLoaded, TakesTheIdlest) {
  auto policy = Make("least-loaded");
  auto view = Cluster(3, 3);
  view.decode[0].requests_running = 2;
  view.decode[1].blocks_live = 10;
  view.prefill[0].queue_predicted_us = 10;
  view.prefill[2].load.unreported_us = view.prefill[2].load.predicted_us = 5;
  const Placement placement = Place(*policy, Prompt(100).facts, view);
  EXPECT_EQ(placement.decode, 2);
  EXPECT_THAT(placement.prefill, ElementsAre(1, 2, 0));
}

TEST(PrefixAffinity, ComesBackToTheCacheUnlessItPilesUp) {
  auto policy = Make("prefix-affinity");
  auto view = Cluster(2, 3);
  view.decode[0].requests_running = 1;
  view.decode[2].requests_running = 1;
  const Prompt turn1(320), turn2(640), other(320, 5000);
  EXPECT_EQ(Place(*policy, turn1.facts, view).decode, 1);
  view.decode[1].requests_running = 5;
  const Placement again = Place(*policy, turn2.facts, view);
  EXPECT_EQ(again.decode, 1);
  EXPECT_EQ(again.cached_tokens, 320);
  EXPECT_LT(again.predicted_us, view.decode[1].cost.PrefillUs(640, 0));
  EXPECT_NE(Place(*policy, other.facts, view).decode, 1);
  view.decode[1].requests_running = 50;
  EXPECT_NE(Place(*policy, turn1.facts, view).decode, 1);
}

TEST(PrefixAffinity, ADeadIncarnationHasNoCache) {
  auto policy = Make("prefix-affinity");
  auto view = Cluster(1, 2);
  const Prompt prompt(320);
  EXPECT_EQ(Place(*policy, prompt.facts, view).cached_tokens, 0);
  EXPECT_EQ(Place(*policy, prompt.facts, view).cached_tokens, 319);  // the last one is computed
  view.decode[0].incarnation += 1000;
  EXPECT_EQ(Place(*policy, prompt.facts, view).cached_tokens, 0);
}

TEST(ContextLength, ClassesByPredictedTimeOfTheUncachedTokens) {
  PolicyOptions options;
  options.long_tokens = 1000;
  auto policy = Make("context-length", options);
  const auto view = Cluster(2, 1);
  EXPECT_FALSE(Place(*policy, Prompt(1000).facts, view).is_long);
  EXPECT_TRUE(Place(*policy, Prompt(8000, 100000).facts, view).is_long);
  // The same prompt again costs only its last token.
  EXPECT_FALSE(Place(*policy, Prompt(8000, 100000).facts, view).is_long);
}

TEST(ContextLength, ShortPromptsStayAwayFromTheLongPool) {
  PolicyOptions options;
  options.long_tokens = 1000;
  auto policy = Make("context-length", options);
  auto view = Cluster(2, 1);
  view.prefill[0].queue_predicted_us = 900;  // both busy: nobody is idle to help
  view.prefill[1].queue_predicted_us = 800;
  EXPECT_EQ(Place(*policy, Prompt(100).facts, view).prefill[0], 0);
  EXPECT_EQ(Place(*policy, Prompt(9000).facts, view).prefill[0], 1);
}

TEST(ContextLength, AnIdlePoolHelpsTheOther) {
  PolicyOptions options;
  options.long_tokens = 1000;
  auto policy = Make("context-length", options);
  auto view = Cluster(2, 1);
  view.prefill[0].queue_predicted_us = 900;
  EXPECT_EQ(Place(*policy, Prompt(100).facts, view).prefill[0], 1);
  view.prefill[0].queue_predicted_us = 0;
  view.prefill[1].queue_predicted_us = 900;
  EXPECT_EQ(Place(*policy, Prompt(9000).facts, view).prefill[0], 0);
}

TEST(ContextLength, TheBoundaryMovesWithTheLoad) {
  PolicyOptions options;
  options.long_tokens = 1000;
  options.prefill_choices = 1;
  auto policy = Make("context-length", options);
  auto view = Cluster(4, 1);
  for (auto& worker : view.prefill) worker.queue_predicted_us = 1000;
  const auto pool_of_short = [&](int64_t now_us) {
    // Which workers a short prompt prefers when each in turn is the least busy.
    std::set<int> pool;
    for (int i = 0; i < 4; ++i) {
      view.prefill[i].queue_predicted_us = 10;
      const Prompt probe(10);
      auto choice = policy->Choose(probe.facts, view, now_us);
      if (std::get<Placement>(choice).prefill[0] == i) pool.insert(i);
      view.prefill[i].queue_predicted_us = 1000;
    }
    return pool;
  };
  for (int i = 0; i < 20; ++i) Place(*policy, Prompt(9000, 10000 * i).facts, view, i);
  EXPECT_EQ(pool_of_short(20).size(), 1u);
  for (int i = 0; i < 200; ++i) {
    Place(*policy, Prompt(900, 1000000 + 1000 * i).facts, view, 300'000'000 + i);
  }
  EXPECT_EQ(pool_of_short(300'000'200).size(), 3u);
}

TEST(ContextLength, DecodeChoiceWeighsCacheAgainstLoad) {
  auto policy = Make("context-length");
  auto view = Cluster(1, 2);
  const Prompt prompt(8000);
  const int first = Place(*policy, prompt.facts, view).decode;
  view.decode[first].requests_running = 2;
  EXPECT_EQ(Place(*policy, prompt.facts, view).decode, first);  // saves 80 ms of prefill
  Prompt small(32, 90000);
  EXPECT_NE(Place(*policy, small.facts, view).decode, first);
}

TEST(ContextLength, ComesBackToTheCacheThoughTheLastStatusStillSawTheRequest) {
  auto policy = Make("context-length");
  auto view = Cluster(2, 2);
  const Prompt prompt(62);
  const Placement first = Place(*policy, prompt.facts, view);
  for (WorkerView* worker : {&view.decode[first.decode], &view.prefill[first.prefill[0]]}) {
    worker->requests_running = 1;
    worker->blocks_live = 5;
    worker->load_then.requests = 1;
    worker->load_then.kv_tokens = 62 + 16;
  }
  const Placement second = Place(*policy, prompt.facts, view);
  EXPECT_EQ(second.decode, first.decode);
  EXPECT_EQ(second.prefill[0], first.prefill[0]);
  EXPECT_EQ(second.cached_tokens, 48);
}

}  // namespace
}  // namespace longhaul
