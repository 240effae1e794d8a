#include "router/core/cluster.h"

#include <memory>
#include <vector>

#include "common/runtime/virtual_loop.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/router/core/fake_worker.h"

namespace longhaul {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ClusterTest : public ::testing::Test {
 protected:
  void Start(ClusterOptions options = {}) {
    ClusterMembers members;
    members.decode.push_back({"d0", "d0:1", std::make_unique<FakeWorkerClient>(&loop_, &decode_)});
    members.prefill.push_back(
        {"p0", "p0:1", std::make_unique<FakeWorkerClient>(&loop_, &prefill_)});
    cluster_ = std::make_unique<Cluster>(&loop_, options, std::move(members));
    cluster_->OnLost([this](uint64_t incarnation) { lost_.push_back(incarnation); });
    cluster_->Start();
    loop_.RunFor(1000);
  }
  const WorkerView& Decode() { return cluster_->View().decode[0]; }

  // On the one decode worker, its prompt on the one prefill worker.
  static Placement OnBoth() {
    Placement placement;
    placement.decode = 0;
    placement.prefill = {0};
    placement.predicted_us = 50;
    return placement;
  }

  VirtualLoop loop_;
  FakeWorker decode_{"d0", "decode", 100};
  FakeWorker prefill_{"p0", "prefill", 200};
  std::vector<uint64_t> lost_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(ClusterTest, AStatusMakesAWorkerReadyAndFillsTheView) {
  decode_.status.set_blocks_live(5);
  decode_.status.set_requests_queued(2);
  decode_.status.set_queue_predicted_us(77);
  for (const double c : {100.0, 10.0, 0.5, 1.0, 2.0, 3.0}) decode_.status.add_cost_model(c);
  Start();
  const WorkerView& view = Decode();
  EXPECT_TRUE(view.ready);
  EXPECT_EQ(view.incarnation, 100u);
  EXPECT_EQ(view.blocks_live, 5);
  EXPECT_EQ(view.requests(), 2);
  EXPECT_EQ(view.wait_us(), 77);
  EXPECT_DOUBLE_EQ(view.cost.PrefillUs(1, 0), 110.25);
  EXPECT_EQ(view.sequence_tokens_max(), 8000);
  EXPECT_EQ(cluster_->ready_counts().decode, 1);
  EXPECT_EQ(cluster_->ready_counts().prefill, 1);
}

TEST_F(ClusterTest, SilenceMakesItStaleAndLaterLost) {
  Start();
  loop_.RunFor(2'900'000);
  EXPECT_TRUE(Decode().ready);
  loop_.RunFor(200'000);
  EXPECT_FALSE(Decode().ready);
  EXPECT_THAT(Decode().unready_why, HasSubstr("no status for 3."));
  decode_.Report();  // it was only busy
  EXPECT_TRUE(Decode().ready);
  EXPECT_TRUE(lost_.empty());
  decode_.reachable = prefill_.reachable = false;
  loop_.RunFor(17'000'000);
  EXPECT_THAT(lost_, testing::UnorderedElementsAre(100u, 200u));
  EXPECT_EQ(cluster_->ready_counts().decode, 0);
}

TEST_F(ClusterTest, ABrokenStreamIsOpenedAgain) {
  Start();
  decode_.Die();
  EXPECT_FALSE(Decode().ready);
  EXPECT_THAT(Decode().unready_why, HasSubstr("connection reset"));
  loop_.RunFor(1'000'000);
  EXPECT_FALSE(Decode().ready);
  decode_.reachable = true;
  loop_.RunFor(2'100'000);
  EXPECT_TRUE(Decode().ready);
  EXPECT_TRUE(lost_.empty());  // the same incarnation
}

TEST_F(ClusterTest, ANewIncarnationEndsTheOldOneAndItsCounters) {
  Start();
  auto old_lease = cluster_->Reserve(OnBoth(), 30);
  EXPECT_EQ(Decode().load.requests, 1);
  EXPECT_EQ(Decode().load.kv_tokens, 30);
  EXPECT_EQ(cluster_->View().prefill[0].wait_us(), 50);
  decode_.status.set_incarnation(101);
  decode_.Report();
  EXPECT_THAT(lost_, ElementsAre(100u));
  EXPECT_EQ(Decode().load.requests, 0);
  auto new_lease = cluster_->Reserve(OnBoth(), 7);
  old_lease.reset();
  EXPECT_EQ(Decode().load.requests, 1);
  EXPECT_EQ(Decode().load.kv_tokens, 7);
  new_lease.reset();
  EXPECT_EQ(Decode().load.requests, 0);
  EXPECT_EQ(cluster_->View().prefill[0].load.requests, 0);
  EXPECT_EQ(cluster_->View().prefill[0].load.predicted_us, 0);
}

TEST_F(ClusterTest, APromptThatIsDoneIsNoLoadOfItsPrefillWorker) {
  Start();
  auto lease = cluster_->Reserve(OnBoth(), 30);
  lease->PromptDone();
  EXPECT_EQ(cluster_->View().prefill[0].load.requests, 0);
  EXPECT_EQ(cluster_->View().prefill[0].load.kv_tokens, 0);
  EXPECT_EQ(cluster_->View().prefill[0].load.predicted_us, 0);
  EXPECT_EQ(Decode().load.requests, 1);
  EXPECT_EQ(Decode().load.kv_tokens, 30);
  lease.reset();
  EXPECT_EQ(cluster_->View().prefill[0].load.requests, 0);
  EXPECT_EQ(Decode().load.requests, 0);
  EXPECT_EQ(Decode().load.kv_tokens, 0);
}

TEST_F(ClusterTest, AStatusCoversWhatWasSentBefore) {
  Start();
  auto lease = cluster_->Reserve(OnBoth(), 30);
  prefill_.status.set_queue_predicted_us(45);
  prefill_.Report();
  EXPECT_EQ(cluster_->View().prefill[0].wait_us(), 45);
  EXPECT_EQ(cluster_->View().prefill[0].load.requests, 1);
}

TEST_F(ClusterTest, WhatHasEndedIsNoLoadThoughTheLastStatusSaidSo) {
  Start();
  auto first = cluster_->Reserve(OnBoth(), 30);
  auto second = cluster_->Reserve(OnBoth(), 30);
  decode_.status.set_requests_running(3);  // one is another router's
  decode_.status.set_blocks_live(5);       // of 16 tokens: 20 tokens more than ours can be
  decode_.Report();
  prefill_.status.set_requests_running(2);
  prefill_.status.set_queue_predicted_us(75);  // half of the first is done
  prefill_.Report();
  EXPECT_EQ(Decode().requests(), 3);
  EXPECT_EQ(Decode().kv_tokens_live(), 80);
  EXPECT_EQ(cluster_->View().prefill[0].wait_us(), 75);
  first->PromptDone();
  EXPECT_EQ(cluster_->View().prefill[0].wait_us(), 50);
  EXPECT_EQ(cluster_->View().prefill[0].requests(), 1);
  second->PromptDone();
  EXPECT_EQ(cluster_->View().prefill[0].wait_us(), 0);
  first.reset();
  EXPECT_EQ(Decode().requests(), 2);
  EXPECT_EQ(Decode().kv_tokens_live(), 50);
  second.reset();
  EXPECT_EQ(Decode().requests(), 1);
  EXPECT_EQ(Decode().kv_tokens_live(), 20);
  EXPECT_EQ(cluster_->View().prefill[0].requests(), 0);
}

TEST_F(ClusterTest, WhatIsSentAfterAStatusIsAddedToIt) {
  Start();
  prefill_.status.set_requests_running(1);
  prefill_.status.set_queue_predicted_us(20);
  prefill_.Report();
  auto lease = cluster_->Reserve(OnBoth(), 30);
  EXPECT_EQ(cluster_->View().prefill[0].wait_us(), 70);
  EXPECT_EQ(cluster_->View().prefill[0].requests(), 2);
}

TEST_F(ClusterTest, AnotherModelProtocolOrRoleIsRefusedLoudly) {
  ClusterOptions options;
  options.model_digest = {1, 2};
  decode_.status.mutable_fingerprint()->set_model_digest_high(1);
  decode_.status.mutable_fingerprint()->set_model_digest_low(3);
  prefill_.status.mutable_fingerprint()->set_model_digest_high(1);
  prefill_.status.mutable_fingerprint()->set_model_digest_low(2);
  Start(options);
  EXPECT_FALSE(Decode().ready);
  EXPECT_THAT(Decode().unready_why, HasSubstr("another model"));
  EXPECT_TRUE(cluster_->View().prefill[0].ready);
  decode_.status.mutable_fingerprint()->set_model_digest_low(2);
  decode_.status.set_incarnation(101);  // redeployed with the right one
  decode_.Report();
  EXPECT_TRUE(Decode().ready);
  decode_.status.set_incarnation(102);
  decode_.status.mutable_fingerprint()->set_protocol_version(99);
  decode_.Report();
  EXPECT_THAT(Decode().unready_why, HasSubstr("protocol 99"));
  decode_.status.set_incarnation(103);
  decode_.status.mutable_fingerprint()->set_protocol_version(kProtocolVersion);
  decode_.status.set_role("prefill");
  decode_.Report();
  EXPECT_THAT(Decode().unready_why, HasSubstr("configured as decode"));
}

TEST_F(ClusterTest, ADrainingWorkerGetsNothingNew) {
  Start();
  decode_.status.set_draining(true);
  decode_.Report();
  EXPECT_FALSE(Decode().ready);
  EXPECT_EQ(Decode().unready_why, "draining");
  EXPECT_TRUE(lost_.empty());
}

}  // namespace
}  // namespace longhaul
