// The hand-off between real workers on virtual time: right tokens on every path, and no block left
// behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace longhaul
