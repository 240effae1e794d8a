// The contract suite over the simulated network, and what only it can do: faults at a chosen
// instant, and mutants.
#include <algorithm>
#include <random>

#include "common/runtime/virtual_loop.h"
#include "kv_transfer/simulated_network.h"
#include "tests/contract/transport_contract_test.h"

namespace longhaul {
namespace {

class SimulatedWorld final : public TransportWorld {
 public:
  explicit SimulatedWorld(SimulatedNetworkOptions options)
      : network_(&loop_, options, [random = std::mt19937_64(7)]() mutable { return random(); }) {}

  Transport& receiver() override { return *receiver_; }
  Transport& sender() override { return *sender_; }
  void OnReceiver(absl::FunctionRef<void()> body) override { body(); }
  void OnSender(absl::FunctionRef<void()> body) override { body(); }
  bool Await(absl::FunctionRef<bool()> condition) override {
    while (true) {
      bool met = false;
      Look([&] { met = condition(); });
      if (met) return true;
      if (!loop_.RunOne()) return false;
    }
  }

  VirtualLoop& loop() { return loop_; }
  SimulatedNetwork& network() { return network_; }

 private:
  VirtualLoop loop_;
  SimulatedNetwork network_;
  std::unique_ptr<Transport> receiver_ = network_.MakeTransport("decode");
  std::unique_ptr<Transport> sender_ = network_.MakeTransport("prefill");
};

INSTANTIATE_TEST_SUITE_P(Simulated, TransportContractTest,
                         testing::Values(TransportMaker{"Plain",
                                                        []() -> std::unique_ptr<TransportWorld> {
                                                          return std::make_unique<SimulatedWorld>(
                                                              SimulatedNetworkOptions{});
                                                        }},
                                         TransportMaker{"Unruly",
                                                        []() -> std::unique_ptr<TransportWorld> {
                                                          return std::make_unique<SimulatedWorld>(
                                                              SimulatedNetworkOptions{
                                                                  .jitter_us = 500,
                                                                  .step_bytes = 1 << 20,
                                                                  .close_us = 3000,
                                                                  .notice_us = 2000});
                                                        }}),
                         MakerName);

constexpr int64_t kBytes = 16 << 20;  // 3.4 ms on the simulated wire

class SimulatedNetworkTest : public testing::Test {
 protected:
  void Start(SimulatedNetworkOptions options) {
    link_.reset();
    world_ = std::make_unique<SimulatedWorld>(options);
    link_ = std::make_unique<TestLink>(*world_);
  }
  void StartMoving() {
    received_ = link_->Receive(1, buffer_);
    sent_ = link_->Send(1, message_);
    world_->loop().RunFor(1000);
    ASSERT_GT(Landed(), 0);
    ASSERT_LT(Landed(), kBytes);
  }
  int64_t Landed() const { return std::count(buffer_.begin(), buffer_.end(), std::byte{9}); }

  const std::vector<std::byte> message_ = std::vector<std::byte>(kBytes, std::byte{9});
  std::vector<std::byte> buffer_ = std::vector<std::byte>(kBytes);
  std::unique_ptr<SimulatedWorld> world_;
  std::unique_ptr<TestLink> link_;
  const Outcome* received_ = nullptr;
  const Outcome* sent_ = nullptr;
};

TEST_F(SimulatedNetworkTest, BandwidthIsSharedByTheLinksOfAProcess) {
  Start({.bytes_per_us = 1000});
  TestLink second(*world_);
  std::vector<std::byte> other(kBytes);
  link_->Receive(1, buffer_);
  second.Receive(1, other);
  link_->Send(1, message_);
  second.Send(1, message_);
  ASSERT_TRUE(link_->AwaitAll() && second.AwaitAll());
  EXPECT_NEAR(world_->loop().NowUs(), 2 * kBytes / 1000, 400);
}

TEST_F(SimulatedNetworkTest, ACrashedReceiverIsNeverWrittenAgain) {
  Start({});
  StartMoving();
  world_->network().Crash("decode");
  const int64_t landed = Landed();
  world_->loop().RunUntilIdle();
  EXPECT_EQ(Landed(), landed);
  EXPECT_EQ(sent_->times, 0) << "shared memory never tells";
}

TEST_F(SimulatedNetworkTest, ACrashIsNoticedWhenTheWireTells) {
  Start({.notice_us = 500});
  StartMoving();
  world_->network().Crash("prefill");
  ASSERT_TRUE(link_->Await(received_));
  EXPECT_TRUE(absl::IsUnavailable(received_->status)) << received_->status;
}

TEST_F(SimulatedNetworkTest, TheRestartedProcessMakesNewLinks) {
  Start({});
  StartMoving();
  world_->network().Crash("prefill");
  auto restarted = world_->network().MakeTransport("prefill");
  EXPECT_TRUE(absl::IsFailedPrecondition(restarted->Connect(link_->address()).status()));
  auto accepted = world_->receiver().Accept();
  ASSERT_TRUE(accepted.ok());
  auto sender = restarted->Connect(accepted->address);
  ASSERT_TRUE(sender.ok());
  std::vector<std::byte> fresh(kBytes);
  absl::Status status = absl::UnknownError("not done");
  accepted->link->Receive(1, {{fresh.data(), kBytes}}, [&](absl::Status s) { status = s; });
  (*sender)->Send(1, {{message_.data(), kBytes}}, [](absl::Status) {});
  world_->loop().RunUntilIdle();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(fresh, message_);
}

TEST_F(SimulatedNetworkTest, APartitionHoldsEverythingUntilItHeals) {
  Start({});
  StartMoving();
  world_->network().Partition("prefill", "decode");
  const int64_t landed = Landed();
  world_->loop().RunUntilIdle();
  EXPECT_EQ(Landed(), landed);
  EXPECT_EQ(received_->times, 0);
  world_->network().Heal("decode", "prefill");
  ASSERT_TRUE(link_->AwaitAll());
  EXPECT_EQ(buffer_, message_);
}

TEST_F(SimulatedNetworkTest, CloseEndsEverythingWhileThePeerIsStopped) {
  Start({.close_us = 1000});
  StartMoving();
  world_->network().Stop("prefill");
  link_->CloseReceiver();
  ASSERT_TRUE(link_->Await(received_));
  const int64_t landed = Landed();
  world_->network().Continue("prefill");
  world_->loop().RunUntilIdle();
  EXPECT_EQ(Landed(), landed);
}

TEST_F(SimulatedNetworkTest, BytesLandUntilCloseHasQuiesced) {
  Start({.close_us = 2000});
  StartMoving();
  const int64_t landed = Landed();
  link_->CloseReceiver();
  ASSERT_TRUE(link_->Await(received_));
  EXPECT_GT(Landed(), landed);
  const int64_t landed_at_done = Landed();
  world_->loop().RunUntilIdle();
  EXPECT_EQ(Landed(), landed_at_done);
  EXPECT_EQ(world_->network().counters().bytes_written_after_done, 0);
}

TEST_F(SimulatedNetworkTest, LossIsToldOrNot) {
  for (const bool told : {true, false}) {
    Start({.loss = 1.0, .loss_is_told = told});
    received_ = link_->Receive(1, buffer_);
    sent_ = link_->Send(1, message_);
    world_->loop().RunUntilIdle();
    EXPECT_EQ(sent_->times, told ? 1 : 0);
    EXPECT_EQ(received_->times, told ? 1 : 0);
    EXPECT_EQ(world_->network().counters().messages_lost, 1);
  }
}

TEST_F(SimulatedNetworkTest, ASenderThatClosesMayTearTheMessage) {
  Start({.sender_close_tears = true});
  StartMoving();
  link_->CloseSender();
  ASSERT_TRUE(link_->Await(received_));
  EXPECT_TRUE(received_->status.ok());
  EXPECT_NE(buffer_, message_);
}

TEST_F(SimulatedNetworkTest, MutantCloseWithoutQuiesceWritesOn) {
  Start({.mutant_close_without_quiesce = true});
  StartMoving();
  link_->CloseReceiver();
  ASSERT_TRUE(link_->Await(received_));
  const int64_t landed = Landed();
  world_->loop().RunUntilIdle();
  EXPECT_GT(Landed(), landed);
  EXPECT_GT(world_->network().counters().bytes_written_after_done, 0);
}

TEST_F(SimulatedNetworkTest, MutantCancelWithoutQuiesceWritesOn) {
  Start({.mutant_cancel_without_quiesce = true});
  StartMoving();
  link_->CancelReceive(1);
  ASSERT_TRUE(link_->Await(received_));
  const int64_t landed = Landed();
  world_->loop().RunUntilIdle();
  EXPECT_GT(Landed(), landed);
}

TEST_F(SimulatedNetworkTest, MutantLateSendWritesIntoCancelledMemory) {
  Start({.mutant_late_send_writes = true});
  received_ = link_->Receive(1, buffer_);
  link_->CancelReceive(1);
  ASSERT_TRUE(link_->Await(received_));
  link_->Send(1, message_);
  world_->loop().RunUntilIdle();
  EXPECT_EQ(buffer_, message_);
}

TEST_F(SimulatedNetworkTest, TheSameSeedGivesTheSameTrace) {
  std::vector<std::vector<int64_t>> traces;
  for (int run = 0; run < 2; ++run) {
    Start({.jitter_us = 300, .close_us = 700, .loss = 0.2, .notice_us = 100});
    auto& trace = traces.emplace_back();
    std::vector<std::vector<std::byte>> buffers(20, std::vector<std::byte>(100'000));
    std::vector<std::unique_ptr<Link>> links;
    for (int i = 0; i < 20; ++i) {
      link_->receiver().Receive(
          i, {{buffers[i].data(), 100'000}}, [&trace, i, this](absl::Status status) {
            trace.insert(trace.end(), {i, world_->loop().NowUs(), static_cast<int>(status.code())});
          });
      link_->sender().Send(i, {{message_.data(), 100'000}}, [](absl::Status) {});
    }
    world_->loop().RunFor(250);
    link_->CloseReceiver();
    world_->loop().RunUntilIdle();
  }
  EXPECT_EQ(traces[0].size(), 60u);
  EXPECT_EQ(traces[0], traces[1]);
}

}  // namespace
}  // namespace longhaul
