// NCCL between the memories of two GPUs of this machine. What needs only one, or none, is below.
#include <array>
#include <chrono>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "kv_transfer/lane/lane_transport.h"
#include "kv_transfer/nccl/nccl_lane.h"
#include "tests/contract/device_pieces.h"
#include "tests/contract/transport_contract_test.h"

namespace longhaul {
namespace {

// Null where there is no such GPU. Never closed: a process cannot count on CUDA while it ends.
const PieceMemory* MemoryOf(int device) {
  static const auto* const memories = new std::array{PieceMemory::Open(MemoryKind::kCuda, 0),
                                                     PieceMemory::Open(MemoryKind::kCuda, 1)};
  const auto& memory = (*memories)[device];
  return memory.ok() ? memory->get() : nullptr;
}

std::unique_ptr<LaneTransport> MakeNcclTransport(const PieceMemory& memory) {
  auto lanes = MakeNcclLanes({.memory = &memory.memory()});
  if (absl::IsUnavailable(lanes.status())) return nullptr;  // built without NCCL
  EXPECT_TRUE(lanes.ok()) << lanes.status();
  auto transport = LaneTransport::Make(*std::move(lanes), "127.0.0.1");
  EXPECT_TRUE(transport.ok()) << transport.status();
  return *std::move(transport);
}

class TwoGpusWorld final : public ThreadedWorld {
 public:
  TwoGpusWorld(std::unique_ptr<LaneTransport> receiver, std::unique_ptr<LaneTransport> sender)
      : receiver_(std::move(receiver)), sender_(std::move(sender)) {}

  Transport& receiver() override { return receiver_pieces_; }
  Transport& sender() override { return sender_pieces_; }

 private:
  Loop& receiver_loop() override { return receiver_loop_; }
  Loop& sender_loop() override { return sender_loop_; }

  std::unique_ptr<LaneTransport> receiver_, sender_;
  DevicePiecesTransport receiver_pieces_{MemoryOf(0), receiver_.get()};
  DevicePiecesTransport sender_pieces_{MemoryOf(1), sender_.get()};
  ThreadLoop receiver_loop_{{.name = "receiver"}, receiver_.get()};
  ThreadLoop sender_loop_{{.name = "sender"}, sender_.get()};
};

std::unique_ptr<TransportWorld> MakeTwoGpusWorld() {
  if (MemoryOf(0) == nullptr || MemoryOf(1) == nullptr) return nullptr;
  auto receiver = MakeNcclTransport(*MemoryOf(0));
  auto sender = MakeNcclTransport(*MemoryOf(1));
  if (receiver == nullptr || sender == nullptr) return nullptr;
  return std::make_unique<TwoGpusWorld>(std::move(receiver), std::move(sender));
}

INSTANTIATE_TEST_SUITE_P(Nccl, TransportContractTest,
                         testing::Values(TransportMaker{"TwoGpus", &MakeTwoGpusWorld}), MakerName);

TEST(NcclLaneTest, TakesAGpusMemoryOnly) {
  const auto lanes = MakeNcclLanes({.memory = &HostKvMemory()});
  EXPECT_FALSE(lanes.ok());
}

class NcclOneGpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (MemoryOf(0) == nullptr) GTEST_SKIP() << "no GPU";
    auto lanes = MakeNcclLanes({.memory = &MemoryOf(0)->memory()});
    if (absl::IsUnavailable(lanes.status())) GTEST_SKIP() << lanes.status();
    ASSERT_TRUE(lanes.ok()) << lanes.status();
    lanes_ = *std::move(lanes);
  }

  std::unique_ptr<LaneMaker> lanes_;
};

TEST_F(NcclOneGpuTest, AnEndWhosePeerNeverComesEndsWithinTwoSecondsOfItsAbort) {
  auto offered = lanes_->Offer();
  ASSERT_TRUE(offered.ok()) << offered.status();
  const std::unique_ptr<DeviceBuffer> buffer = MemoryOf(0)->Allocate(1 << 20);
  absl::Notification ended;
  absl::Status status;
  offered->lane->Join();
  offered->lane->Receive({{buffer->data(), buffer->bytes()}}, [&](absl::Status outcome) {
    status = std::move(outcome);
    ended.Notify();
  });
  EXPECT_FALSE(ended.WaitForNotificationWithTimeout(absl::Milliseconds(300)));
  const auto aborted = std::chrono::steady_clock::now();
  offered->lane->Abort();
  ASSERT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_LT(std::chrono::steady_clock::now() - aborted, std::chrono::seconds(2));
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  bool late_ended = false;
  offered->lane->Receive({{buffer->data(), 1}},
                         [&](absl::Status outcome) { late_ended = absl::IsCancelled(outcome); });
  offered->lane = nullptr;
  EXPECT_TRUE(late_ended);
}

TEST_F(NcclOneGpuTest, AnEndThatWasNeverJoinedEndsAtOnce) {
  const auto offered = lanes_->Offer();
  ASSERT_TRUE(offered.ok()) << offered.status();
}

TEST_F(NcclOneGpuTest, TakesNoLaneOfItsOwnGpuAndNoBytesThatAreNone) {
  const auto offered = lanes_->Offer();
  ASSERT_TRUE(offered.ok()) << offered.status();
  EXPECT_TRUE(absl::IsFailedPrecondition(lanes_->Take(offered->address).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(lanes_->Take("short").status()));
}

}  // namespace
}  // namespace longhaul
