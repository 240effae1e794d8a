// The hand-off between real workers on virtual time: right tokens on every path, and no block left
// behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/workers/stub_cluster.h"

namespace longhaul {
namespace {

std::vector<int32_t> LocalTokens(const std::vector<int32_t>& prompt, int output_tokens) {
  StubCluster cluster;
  const auto reply = Ask(cluster.decode, StubRequest(prompt, output_tokens, /*remote=*/false));
  cluster.loop.RunFor(600'000'000);
  EXPECT_TRUE(reply->done && reply->status.ok()) << reply->status;
  return reply->tokens;
}

void ExpectQuiet(const StubCluster& cluster) {
  EXPECT_TRUE(cluster.prefill.idle());
  EXPECT_TRUE(cluster.decode.idle());
  EXPECT_EQ(cluster.prefill.blocks().live(), 0);
  EXPECT_EQ(cluster.decode.blocks().live(), 0);
}

TEST(WorkerClusterTest, RemotePrefillGivesTheTokensOfLocalPrefill) {
  for (const int length : {1, 2, 3, 4, 5, 8, 9, 33, 64, 65, 200}) {
    StubCluster cluster;
    const std::vector<int32_t> prompt = StubPrompt(length, length);
    const auto reply = Ask(cluster.decode, StubRequest(prompt, 10, /*remote=*/true));
    cluster.loop.RunFor(600'000'000);
    ASSERT_TRUE(reply->done && reply->status.ok()) << length << " " << reply->status;
    EXPECT_EQ(reply->tokens, LocalTokens(prompt, 10)) << length;
    EXPECT_EQ(reply->timing.path(), length == 1   ? "cached"
                                    : length <= 3 ? "local"
                                                  : "remote")
        << length;
    ExpectQuiet(cluster);
  }
}

TEST(WorkerClusterTest, AnyWidthHandsToAnyOther) {
  const std::vector<int32_t> prompt = StubPrompt(103, 4);
  const std::vector<int32_t> want = LocalTokens(prompt, 10);
  for (const int prefill : {1, 2, 4}) {
    for (const int decode : {1, 2, 4}) {
      StubCluster cluster(256, 256, StubDecodeOptions(), StubPrefillOptions(), prefill, decode);
      const auto reply = Ask(cluster.decode, StubRequest(prompt, 10, /*remote=*/true));
      cluster.loop.RunFor(600'000'000);
      ASSERT_TRUE(reply->done && reply->status.ok()) << prefill << " to " << decode;
      EXPECT_EQ(reply->tokens, want) << prefill << " to " << decode;
      EXPECT_EQ(reply->timing.path(), "remote");
      EXPECT_EQ(cluster.decode.counters().digest_mismatches, 0);
      ExpectQuiet(cluster);
    }
  }
}

TEST(WorkerClusterTest, RanksThatCannotShareTheHeadsAreRefusedByNumber) {
  StubCluster cluster;
  PrefillCommand::Open open;
  open.mutable_tokens()->Add(5);
  open.set_chunk_tokens(8);
  open.set_kv_parts(3);
  absl::Status refused;
  const auto call = cluster.prefill.Prefill(
      open, [](const PrefillEvent&) {}, [&](const absl::Status& status) { refused = status; });
  cluster.loop.RunFor(1'000'000);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("2 key/value heads"));
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("3 ranks"));
}

TEST(WorkerClusterTest, CachedPrefixesGiveTheSameTokens) {
  StubCluster cluster;
  const std::vector<int32_t> prompt = StubPrompt(100, 5);
  const auto first = Ask(cluster.decode, StubRequest(prompt, 6, true));
  cluster.loop.RunFor(600'000'000);
  const auto again = Ask(cluster.decode, StubRequest(prompt, 6, true));
  cluster.loop.RunFor(600'000'000);
  EXPECT_EQ(first->tokens, again->tokens);
  EXPECT_EQ(again->timing.cached_tokens(), 96);
  std::vector<int32_t> longer = prompt;
  longer.insert(longer.end(), {1, 2, 3, 4, 5, 6, 7, 8, 9});
  const auto third = Ask(cluster.decode, StubRequest(longer, 6, true));
  cluster.loop.RunFor(600'000'000);
  EXPECT_EQ(third->tokens, LocalTokens(longer, 6));
  EXPECT_EQ(third->timing.path(), "remote");
  ExpectQuiet(cluster);
}

TEST(WorkerClusterTest, ManyAtOnceInASmallPoolAllFinish) {
  // 24 blocks of 4 tokens hold two of these at a time: sequences wait, grow and step back.
  StubCluster cluster(/*prefill_blocks=*/40, /*decode_blocks=*/24);
  std::vector<std::unique_ptr<StubReply>> replies;
  for (int i = 0; i < 12; ++i) {
    replies.push_back(Ask(cluster.decode, StubRequest(StubPrompt(20 + i, i), 24, i % 3 != 0)));
  }
  cluster.loop.RunFor(3'600'000'000);
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(replies[i]->done && replies[i]->status.ok()) << i << " " << replies[i]->status;
    EXPECT_EQ(replies[i]->tokens, LocalTokens(StubPrompt(20 + i, i), 24)) << i;
  }
  EXPECT_GT(cluster.decode.preemptions(), 0);
  ExpectQuiet(cluster);
}

TEST(WorkerClusterTest, CancelAtAnyMomentLeavesNoBlock) {
  const std::vector<int32_t> prompt = StubPrompt(150, 3);
  for (int64_t at_us = 0; at_us < 60'000; at_us += 1'500) {
    StubCluster cluster;
    auto reply = Ask(cluster.decode, StubRequest(prompt, 20, true));
    const auto other = Ask(cluster.decode, StubRequest(StubPrompt(40, 9), 5, true));
    cluster.loop.RunFor(at_us);
    reply->call.reset();
    cluster.loop.RunFor(600'000'000);
    EXPECT_TRUE(other->done && other->status.ok()) << at_us;
    ExpectQuiet(cluster);
  }
}

TEST(WorkerClusterTest, ForeignFingerprintIsRefusedByName) {
  DecodeWorkerOptions options = StubDecodeOptions();
  options.fingerprint.set_block_tokens(64);
  StubCluster cluster(256, 256, options);
  const auto reply = Ask(cluster.decode, StubRequest(StubPrompt(50, 1), 5, true));
  cluster.loop.RunFor(600'000'000);
  EXPECT_EQ(reply->status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(reply->status.message()), testing::HasSubstr("KV block sizes differ"));
  ExpectQuiet(cluster);
}

TEST(WorkerClusterTest, AnotherTransportIsRefusedByName) {
  PrefillWorkerOptions prefill = StubPrefillOptions();
  prefill.fingerprint.set_kv_transport("nccl");
  DecodeWorkerOptions decode = StubDecodeOptions();
  decode.fingerprint.set_kv_transport("ucx");
  StubCluster cluster(256, 256, decode, prefill);
  const auto reply = Ask(cluster.decode, StubRequest(StubPrompt(50, 1), 5, true));
  cluster.loop.RunFor(600'000'000);
  EXPECT_EQ(reply->status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(reply->status.message()),
              testing::HasSubstr("KV transports (--kv_transport) differ: nccl here, ucx there"));
  ExpectQuiet(cluster);
}

TEST(WorkerClusterTest, UnknownPrefillWorkerFallsBackToThisOne) {
  StubCluster cluster;
  GenerateRequest request = StubRequest(StubPrompt(50, 1), 5, false);
  request.add_prefill_addresses("nobody");
  request.add_prefill_names("nobody");
  const auto reply = Ask(cluster.decode, request);
  cluster.loop.RunFor(600'000'000);
  EXPECT_TRUE(reply->done && reply->status.ok()) << reply->status;
  EXPECT_EQ(reply->tokens, LocalTokens(StubPrompt(50, 1), 5));
  EXPECT_EQ(reply->timing.path(), "local");
  EXPECT_EQ(cluster.decode.counters().local_fallbacks, 1);
  ExpectQuiet(cluster);
}

TEST(WorkerClusterTest, RefusesWhatItCouldNeverServe) {
  StubCluster cluster(256, /*decode_blocks=*/8);
  const auto reply = Ask(cluster.decode, StubRequest(StubPrompt(30, 1), 10, true));
  cluster.loop.RunFor(1'000'000);
  EXPECT_EQ(reply->status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(reply->status.message()), testing::HasSubstr("10 KV blocks"));
  GenerateRequest foreign = StubRequest({5, kStubVocab}, 5, false);
  const auto bad = Ask(cluster.decode, foreign);
  cluster.loop.RunFor(1'000'000);
  EXPECT_EQ(bad->status.code(), absl::StatusCode::kInvalidArgument);
}

GenerateRequest SilentFirst(const std::vector<int32_t>& prompt) {
  GenerateRequest request = StubRequest(prompt, 5, /*remote=*/false);
  for (const char* const name : {"silent", "prefill"}) {
    request.add_prefill_addresses(name);
    request.add_prefill_names(name);
  }
  return request;
}

// Heartbeats of HandOffOptions' default, and one for the timer that is under way.
constexpr int64_t kSilenceUs = 6 * 2'000'000;

TEST(WorkerClusterTest, APrefillWorkerThatSaysNothingIsLeftForTheNext) {
  StubCluster cluster;
  const std::vector<int32_t> prompt = StubPrompt(50, 1);
  const auto reply = Ask(cluster.decode, SilentFirst(prompt));
  cluster.loop.RunFor(kSilenceUs - 2'500'000);
  EXPECT_EQ(cluster.silent.calls_open(), 1);
  cluster.loop.RunFor(3'000'000);
  EXPECT_TRUE(reply->done && reply->status.ok()) << reply->status;
  EXPECT_EQ(reply->tokens, LocalTokens(prompt, 5));
  EXPECT_EQ(reply->timing.prefill_name(), "prefill");
  EXPECT_EQ(cluster.decode.counters().hand_off_attempts_failed, 1);
  EXPECT_EQ(cluster.silent.calls_open(), 0);
  ExpectQuiet(cluster);
}

TEST(WorkerClusterTest, AWordNowAndThenKeepsAnAttempt) {
  StubCluster cluster;
  const auto reply = Ask(cluster.decode, SilentFirst(StubPrompt(50, 1)));
  for (int i = 0; i < 20; ++i) {
    cluster.loop.RunFor(kSilenceUs - 2'500'000);
    cluster.silent.SayHeartbeat();
  }
  EXPECT_EQ(cluster.silent.calls_open(), 1);
  cluster.loop.RunFor(kSilenceUs + 1'000'000);
  EXPECT_EQ(cluster.silent.calls_open(), 0);
  EXPECT_TRUE(reply->done && reply->status.ok()) << reply->status;
}

TEST(WorkerClusterTest, APrefillWorkerThatComputesForLongSaysThatItLives) {
  DecodeWorkerOptions options = StubDecodeOptions();
  options.hand_off.heartbeat_us = 1'000;  // six of them are shorter than one chunk's compute
  StubCluster cluster(256, 256, options);
  const std::vector<int32_t> prompt = StubPrompt(400, 2);
  const auto reply = Ask(cluster.decode, StubRequest(prompt, 5, true));
  cluster.loop.RunFor(600'000'000);
  EXPECT_TRUE(reply->done && reply->status.ok()) << reply->status;
  EXPECT_GT(reply->timing.prefill_us(), 100'000);
  EXPECT_EQ(cluster.decode.counters().hand_off_attempts_failed, 0);
  EXPECT_EQ(reply->timing.path(), "remote");
  ExpectQuiet(cluster);
}

// Its last chunk is on its way before the step has ended.
TEST(WorkerClusterTest, APromptOfOneStepTellsWhatItTookToCompute) {
  StubCluster cluster;
  const auto reply = Ask(cluster.decode, StubRequest(StubPrompt(21, 4), 1, true));
  cluster.loop.RunUntilIdle();
  EXPECT_EQ(cluster.prefill.counters().chunks_computed, 1);
  const double expected_us = CostModel().PrefillUs(20, 0);
  EXPECT_NEAR(static_cast<double>(reply->timing.prefill_us()), expected_us, 0.05 * expected_us);
}

TEST(WorkerClusterTest, APrefillWorkerWhoseDeviceHangsIsGivenUp) {
  StubCluster cluster;
  const auto first = Ask(cluster.decode, StubRequest(StubPrompt(100, 1), 2, true));
  cluster.loop.RunFor(600'000'000);
  EXPECT_TRUE(first->done && first->status.ok()) << first->status;
  cluster.prefill_device.hangs = true;
  const std::vector<int32_t> prompt = StubPrompt(300, 2);
  const auto reply = Ask(cluster.decode, StubRequest(prompt, 5, true));
  cluster.loop.RunFor(8'000'000);
  EXPECT_EQ(cluster.decode.counters().hand_off_attempts_failed, 0);
  cluster.loop.RunFor(100'000'000);
  EXPECT_TRUE(reply->done && reply->status.ok()) << reply->status;
  EXPECT_EQ(reply->tokens, LocalTokens(prompt, 5));
  EXPECT_EQ(cluster.decode.counters().local_fallbacks, 1);
  EXPECT_GT(cluster.prefill.Status().queue_predicted_us(), 50e6) << "policies look elsewhere";
  EXPECT_GT(cluster.prefill.blocks().live(), 0) << "the step may still write them";
}

TEST(WorkerClusterTest, ADecodeWorkerThatSaysNothingGivesThePrefillWorkersMemoryBack) {
  StubCluster cluster;
  std::string address;
  cluster.decode_engine.Accept([&](absl::StatusOr<std::string> made) { address = *made; });
  cluster.loop.RunFor(1'000);
  PrefillCommand::Open open;
  const std::vector<int32_t> prompt = StubPrompt(100, 1);
  open.mutable_tokens()->Add(prompt.begin(), prompt.end());
  open.set_transfer_id(1);
  open.set_chunk_tokens(8);
  open.set_kv_parts(1);
  open.set_chunks_granted(2);
  open.set_link_address(address);
  open.set_heartbeat_us(1'000'000);
  int heartbeats = 0;
  std::vector<absl::Status> ends;
  const auto call = cluster.prefill.Prefill(
      open, [&](const PrefillEvent& event) { heartbeats += event.has_heartbeat(); },
      [&](const absl::Status& status) { ends.push_back(status); });
  for (int i = 0; i < 10; ++i) {
    cluster.loop.RunFor(4'000'000);
    call->Grant(2);
  }
  EXPECT_EQ(heartbeats, 40);
  EXPECT_GT(cluster.prefill.blocks().live(), 0);
  EXPECT_THAT(ends, testing::IsEmpty());
  cluster.loop.RunFor(60'000'000);
  ASSERT_EQ(ends.size(), 1u);
  EXPECT_EQ(ends[0].code(), absl::StatusCode::kDeadlineExceeded) << ends[0];
  EXPECT_TRUE(cluster.prefill.idle());
  EXPECT_EQ(cluster.prefill.blocks().live(), 0);
}

TEST(WorkerClusterTest, AHeartbeatThatWouldFloodAPrefillWorkerIsRefused) {
  DecodeWorkerOptions options = StubDecodeOptions();
  options.hand_off.heartbeat_us = 10;
  StubCluster cluster(256, 256, options);
  const auto reply = Ask(cluster.decode, StubRequest(StubPrompt(50, 1), 5, true));
  cluster.loop.RunFor(600'000'000);
  EXPECT_EQ(reply->status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(reply->status.message()), testing::HasSubstr("heartbeat every 10 us"));
  ExpectQuiet(cluster);
}

TEST(WorkerClusterTest, ADecodeWorkerTellsWhatItHasToComputeOfPrompts) {
  StubCluster cluster;
  const auto remote = Ask(cluster.decode, StubRequest(StubPrompt(300, 1), 5, true));
  EXPECT_EQ(cluster.decode.Status().queue_predicted_us(), 0);
  const auto local = Ask(cluster.decode, StubRequest(StubPrompt(300, 2), 5, /*remote=*/false));
  const double whole_us = cluster.decode.Status().queue_predicted_us();
  EXPECT_NEAR(whole_us, CostModel().PrefillUs(299, 0), 1);
  cluster.loop.RunFor(static_cast<int64_t>(whole_us / 2));
  EXPECT_GT(cluster.decode.Status().queue_predicted_us(), 0);
  EXPECT_LT(cluster.decode.Status().queue_predicted_us(), 0.8 * whole_us);
  cluster.loop.RunFor(600'000'000);
  EXPECT_TRUE(local->done && remote->done);
  EXPECT_EQ(cluster.decode.Status().queue_predicted_us(), 0);
}

struct StepTimes final : DecodeWorker::Observer {
  void OnFirstToken(const GenerateEvent::Timing&, const std::string&) override {}
  void OnStep(int64_t, int64_t step_us) override { steps_us.push_back(step_us); }
  void OnCancelledFree(int64_t) override {}
  std::vector<int64_t> steps_us;
};

// Ten times as fast as what the worker believes at first: it must learn so from steps that run
// sequences, too.
TEST(WorkerClusterTest, APromptComputedBesideStreamsFillsTheStepsTargetAndNoMore) {
  constexpr int64_t kTargetUs = 20'000;
  constexpr double kTokenUs = 25;
  StepTimes times;  // the cluster ends with steps under way
  DecodeWorkerOptions options = StubDecodeOptions();
  options.scheduler.step_target_us = kTargetUs;
  options.scheduler.prefill.chunk_tokens_max = 1024;
  StubCluster cluster(256, 1024, options, StubPrefillOptions(), 1, 1,
                      CostModel::FromCoefficients({3'000, kTokenUs, 0.001, 4'000, 50, 0.03}));
  cluster.decode.set_observer(&times);
  std::vector<std::unique_ptr<StubReply>> streams;
  for (int i = 0; i < 4; ++i) {
    streams.push_back(Ask(cluster.decode, StubRequest(StubPrompt(40, i), 200, /*remote=*/false)));
  }
  cluster.loop.RunFor(100'000);
  times.steps_us.clear();
  const auto prompt = Ask(cluster.decode, StubRequest(StubPrompt(3'000, 9), 1, /*remote=*/false));
  while (!prompt->done) cluster.loop.RunFor(1'000);
  ASSERT_FALSE(streams[0]->done) << "the streams should outlast the prompt";
  EXPECT_LE(*std::max_element(times.steps_us.begin(), times.steps_us.end()), kTargetUs * 11 / 10);
  // 12 ms a step are the prompt's, 480 tokens: it needs seven, and some to learn.
  EXPECT_LE(times.steps_us.size(), 14u);
  streams.clear();
}

// A decode worker beside the cluster's own, in one of its lives.
struct OtherDecode {
  OtherDecode(StubCluster& cluster, const std::string& name, uint64_t incarnation)
      : memory(256),
        executor(&cluster.loop, memory.pool, kStubVocab, CostModel()),
        transport(&cluster.loop, cluster.network),
        engine(&cluster.loop, &cluster.loop, &transport),
        worker(Options(name, incarnation), &cluster.loop, &executor, &engine, &cluster.client,
               memory.pool) {}
  static DecodeWorkerOptions Options(const std::string& name, uint64_t incarnation) {
    DecodeWorkerOptions options = StubDecodeOptions();
    options.name = name;
    options.incarnation = incarnation;
    return options;
  }

  StubMemory memory;
  KvStubExecutor executor;
  InProcessTransport transport;
  TransferEngine engine;
  DecodeWorker worker;
};

void ExpectServes(StubCluster& cluster, OtherDecode& decode, int32_t seed) {
  const auto reply = Ask(decode.worker, StubRequest(StubPrompt(50, seed), 3, true));
  cluster.loop.RunFor(600'000'000);
  EXPECT_TRUE(reply->done && reply->status.ok()) << reply->status;
  EXPECT_EQ(reply->timing.path(), "remote");
}

TEST(WorkerClusterTest, ADecodeWorkerBornAgainLeavesNoLinkBehind) {
  StubCluster cluster;
  for (uint64_t life = 1; life <= 20; ++life) {
    OtherDecode decode(cluster, "decode-0", 100 + life);
    ExpectServes(cluster, decode, static_cast<int32_t>(life));
    EXPECT_EQ(cluster.prefill.links(), 1) << life;
  }
}

TEST(WorkerClusterTest, LinksOfManyDecodeWorkersAreBounded) {
  PrefillWorkerOptions options = StubPrefillOptions();
  options.links_idle_max = 3;
  StubCluster cluster(256, 256, StubDecodeOptions(), options);
  OtherDecode returns(cluster, "returns", 99);
  ExpectServes(cluster, returns, 99);
  for (uint64_t other = 1; other <= 10; ++other) {
    OtherDecode decode(cluster, absl::StrCat("decode-", other), 100 + other);
    ExpectServes(cluster, decode, static_cast<int32_t>(other));
    EXPECT_LE(cluster.prefill.links(), 3) << other;
  }
  // Its link was closed as the one that was idle for longest; it is served over a new one.
  ExpectServes(cluster, returns, 98);
  EXPECT_LE(returns.worker.counters().hand_off_attempts_failed, 1);
  EXPECT_EQ(returns.worker.counters().local_fallbacks, 0);
}

}  // namespace
}  // namespace longhaul
