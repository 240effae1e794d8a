#include "kv_transfer/digest_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "common/runtime/virtual_loop.h"
#include "kv_transfer/in_process_transport.h"
#include "kv_transfer/transfer_engine.h"
#include "kv_transfer/transfer_plan.h"

namespace longhaul {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int64_t kSlabBytes = 64;

// Host memory whose digests are ready when the test says so.
class SlowMemory final : public KvMemory {
 public:
  MemoryKind kind() const override { return MemoryKind::kHost; }
  void BindThread() override {}
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override {
    return HostKvMemory().Allocate(bytes);
  }
  void Copy(absl::Span<const Run> runs) override { HostKvMemory().Copy(runs); }
  std::unique_ptr<SlabDigests> Digests(absl::Span<const std::byte* const> slabs,
                                       int64_t slab_bytes) override {
    batches.emplace_back(slabs.size(), slab_bytes);
    return std::make_unique<Batch>(*this, HostKvMemory().Digests(slabs, slab_bytes));
  }

  bool ready = false;
  std::vector<std::pair<int64_t, int64_t>> batches;  // slabs, their size

 private:
  class Batch final : public SlabDigests {
   public:
    Batch(const SlowMemory& memory, std::unique_ptr<SlabDigests> digests)
        : memory_(memory), digests_(std::move(digests)) {}
    bool Ready() override { return memory_.ready; }
    std::vector<uint64_t> Take() override { return digests_->Take(); }

   private:
    const SlowMemory& memory_;
    const std::unique_ptr<SlabDigests> digests_;
  };
};

class DigestQueueTest : public testing::Test {
 protected:
  DigestQueueTest() : bytes_(16 * kSlabBytes) {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<std::byte>(i * 7 + i / 64);
  }
  SendPiece Slabs(int64_t first, int64_t count) const {
    return {bytes_.data() + first * kSlabBytes, count * kSlabBytes};
  }
  void Add(const SendPiece& piece, int64_t slab_bytes = kSlabBytes) {
    queue_->Add({piece}, slab_bytes, [this](uint64_t digest) { digests_.push_back(digest); });
  }
  static uint64_t Expected(const SendPiece& piece, int64_t slab_bytes = kSlabBytes) {
    return MessageDigest(HostKvMemory().Digests(UnitsOf({piece}, slab_bytes), slab_bytes)->Take());
  }

  VirtualLoop loop_;
  SlowMemory memory_;
  std::shared_ptr<DigestQueue> queue_ = std::make_shared<DigestQueue>(&loop_, &memory_);
  std::vector<std::byte> bytes_;
  std::vector<uint64_t> digests_;
};

TEST_F(DigestQueueTest, WhatComesWhileABatchIsUnderWayMakesTheNext) {
  Add(Slabs(0, 2));
  Add(Slabs(2, 1));
  Add(Slabs(3, 4));
  loop_.RunUntilIdle(10);
  EXPECT_THAT(digests_, IsEmpty());
  EXPECT_THAT(memory_.batches, ElementsAre(std::pair(2, kSlabBytes)));
  memory_.ready = true;
  loop_.RunUntilIdle();
  EXPECT_THAT(memory_.batches, ElementsAre(std::pair(2, kSlabBytes), std::pair(5, kSlabBytes)));
  EXPECT_THAT(digests_,
              ElementsAre(Expected(Slabs(0, 2)), Expected(Slabs(2, 1)), Expected(Slabs(3, 4))));
}

TEST_F(DigestQueueTest, UnitsOfAnotherSizeMakeABatchOfTheirOwn) {
  Add(Slabs(0, 1));
  Add(Slabs(1, 2));
  Add(Slabs(4, 4), 2 * kSlabBytes);
  Add(Slabs(8, 1));
  memory_.ready = true;
  loop_.RunUntilIdle();
  EXPECT_THAT(memory_.batches, ElementsAre(std::pair(1, kSlabBytes), std::pair(2, kSlabBytes),
                                           std::pair(2, 2 * kSlabBytes), std::pair(1, kSlabBytes)));
  EXPECT_THAT(digests_, ElementsAre(Expected(Slabs(0, 1)), Expected(Slabs(1, 2)),
                                    Expected(Slabs(4, 4), 2 * kSlabBytes), Expected(Slabs(8, 1))));
}

TEST_F(DigestQueueTest, ReadyDigestsComeAtOnce) {
  memory_.ready = true;
  Add(Slabs(0, 1));
  EXPECT_THAT(digests_, SizeIs(1));
}

// The blocks of a send may be reused once it is done: not while their digest is being computed.
TEST_F(DigestQueueTest, ASendEndsWithItsDigest) {
  const auto network = MakeInProcessNetwork();
  InProcessTransport sender_transport(&loop_, network, &memory_);
  InProcessTransport receiver_transport(&loop_, network, &HostKvMemory());
  TransferEngine sender(&loop_, &loop_, &sender_transport, &memory_);
  TransferEngine receiver(&loop_, &loop_, &receiver_transport);
  std::string address;
  const LinkId to = receiver.Accept([&](absl::StatusOr<std::string> made) { address = *made; });
  loop_.RunUntilIdle();
  const LinkId from = sender.Connect(address);
  std::vector<std::byte> arrived(2 * kSlabBytes);
  uint64_t received = 0;
  receiver.Receive(to, 1, {{arrived.data(), 2 * kSlabBytes}}, kSlabBytes,
                   [&](absl::Status status, uint64_t digest) {
                     EXPECT_TRUE(status.ok());
                     received = digest;
                   });
  bool done = false;
  uint64_t posted = 0;
  sender.Send(
      from, 1, {Slabs(0, 2)}, kSlabBytes, [&](uint64_t digest) { posted = digest; },
      [&](absl::Status status) { done = status.ok(); });
  loop_.RunUntilIdle(1000);
  EXPECT_EQ(received, Expected(Slabs(0, 2)));
  EXPECT_EQ(posted, 0);
  EXPECT_FALSE(done);
  memory_.ready = true;
  loop_.RunUntilIdle();
  EXPECT_EQ(posted, received);
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace longhaul
