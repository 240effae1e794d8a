// Links between real processes, when the other one is killed or stopped: Close on our side always
// ends every operation once, and nothing is written after that, whatever the peer does later.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "common/runtime/thread_loop.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/contract/peer_process.h"
#include "tests/contract/piece_memory.h"

namespace longhaul {
namespace {

constexpr std::byte kPoison{0xA5};
constexpr int kMessages = 32;

class TransportPeerTest : public testing::TestWithParam<PeerWire> {
 protected:
  void SetUp() override {
    auto memory = PieceMemory::Open(GetParam().kind);
    if (absl::IsUnavailable(memory.status())) GTEST_SKIP() << memory.status();
    memory_ = *std::move(memory);
    if (GetParam().peer_device >= std::max(CudaDevices(), 1)) GTEST_SKIP() << "one GPU";
    auto transport = GetParam().make(&memory_->memory());
    if (GetParam().kind != MemoryKind::kHost && absl::IsUnavailable(transport.status())) {
      GTEST_SKIP() << transport.status();
    }
    transport_ = *std::move(transport);
    source_ = memory_->Filled(GetParam().message_bytes, std::byte{7});
    loop_ = std::make_unique<ThreadLoop>(ThreadLoopOptions{.name = "self"}, transport_.get());
    Restart();
  }
  void TearDown() override {
    if (loop_ == nullptr) return;
    OnLoop([&] { link_.reset(); });
    CheckPoison();
  }

  void Restart() { peer_ = std::make_unique<PeerProcess>(GetParam()); }

  void OnLoop(absl::FunctionRef<void()> body) {
    absl::Notification finished;
    loop_->Post([&] {
      body();
      finished.Notify();
    });
    finished.WaitForNotification();
  }

  // Links, posts kMessages receives and lets the peer send; returns when some have landed.
  void ReceiveFromPeer() {
    ended_ = 0;
    OnLoop([&] {
      auto accepted = transport_->Accept();
      ASSERT_TRUE(accepted.ok()) << accepted.status();
      link_ = std::move(accepted->link);
      address_ = accepted->address;
      for (int tag = 0; tag < kMessages; ++tag) {
        const DeviceBuffer& buffer =
            *buffers_.emplace_back(memory_->Allocate(GetParam().message_bytes));
        link_->Receive(tag, {{buffer.data(), buffer.bytes()}}, Poisoner(tag, buffer));
      }
    });
    peer_->Connect(address_);
    peer_->Send(0, kMessages, GetParam().message_bytes);
    ASSERT_TRUE(AwaitEnded(2));
  }

  // The same the other way round.
  void SendToPeer() {
    ended_ = 0;
    address_ = peer_->Accept();
    peer_->Receive(0, kMessages / 2, GetParam().message_bytes);
    OnLoop([&] {
      auto link = transport_->Connect(address_);
      ASSERT_TRUE(link.ok()) << link.status();
      link_ = *std::move(link);
      for (int tag = 0; tag < kMessages; ++tag) {
        link_->Send(tag, {{source_->data(), source_->bytes()}},
                    [this](absl::Status) { CountEnd(); });
      }
    });
    ASSERT_TRUE(AwaitEnded(2));
  }

  void CloseAndAwaitAll() {
    OnLoop([&] { link_->Close(); });
    EXPECT_TRUE(AwaitEnded(kMessages));
    OnLoop([&] { link_.reset(); });
    absl::MutexLock lock(&mutex_);
    EXPECT_EQ(ended_, kMessages) << "done came more than once";
  }

  // When a receive ends well its bytes are looked at; then its buffer has its next owner.
  TransferDone Poisoner(int tag, const DeviceBuffer& buffer) {
    return [this, tag, &buffer](absl::Status status) {
      if (status.ok()) {
        EXPECT_TRUE(memory_->IsFilled(buffer, static_cast<std::byte>(tag))) << tag;
      }
      memory_->Fill(buffer, kPoison);
      CountEnd();
    };
  }

  void CheckPoison() {
    for (const auto& buffer : buffers_) {
      ASSERT_TRUE(memory_->IsFilled(*buffer, kPoison)) << "written after done";
    }
  }

  void CountEnd() {
    absl::MutexLock lock(&mutex_);
    ++ended_;
  }
  bool AwaitEnded(int count, absl::Duration limit = absl::Seconds(30)) {
    const auto enough = [&] { return ended_ >= count; };
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&enough), limit);
  }

  void ExpectANewPeerWorks() {
    Restart();
    ReceiveFromPeer();
    EXPECT_TRUE(AwaitEnded(kMessages));
    OnLoop([&] { link_.reset(); });
  }

  std::unique_ptr<PieceMemory> memory_;
  std::unique_ptr<DeviceBuffer> source_;
  std::deque<std::unique_ptr<DeviceBuffer>> buffers_;
  absl::Mutex mutex_;
  int ended_ = 0;
  std::string address_;
  std::unique_ptr<WireTransport> transport_;
  std::unique_ptr<ThreadLoop> loop_;
  std::unique_ptr<Link> link_;
  std::unique_ptr<PeerProcess> peer_;
};

TEST_P(TransportPeerTest, ManyPiecesArrive) {
  // Each message is one piece at the peer and up to 256 here, in an order of their own.
  const int64_t bytes = GetParam().message_bytes;
  OnLoop([&] {
    auto accepted = transport_->Accept();
    ASSERT_TRUE(accepted.ok()) << accepted.status();
    link_ = std::move(accepted->link);
    address_ = accepted->address;
    for (int tag = 0; tag < kMessages; ++tag) {
      const DeviceBuffer& buffer = *buffers_.emplace_back(memory_->Allocate(bytes));
      const int64_t step = bytes / (1 << (tag % 9));
      std::vector<ReceivePiece> pieces;
      for (int64_t at = 0; at < bytes; at += step) pieces.push_back({buffer.data() + at, step});
      std::reverse(pieces.begin(), pieces.end());
      link_->Receive(tag, std::move(pieces), Poisoner(tag, buffer));
    }
  });
  peer_->Connect(address_);
  peer_->Send(0, kMessages, bytes);
  EXPECT_TRUE(AwaitEnded(kMessages));
  peer_->AwaitEnded(kMessages);
}

TEST_P(TransportPeerTest, ManyPiecesAreSent) {
  address_ = peer_->Accept();
  peer_->Receive(1, kMessages, GetParam().message_bytes);
  OnLoop([&] {
    auto link = transport_->Connect(address_);
    ASSERT_TRUE(link.ok()) << link.status();
    link_ = *std::move(link);
    for (int tag = 1; tag <= kMessages; ++tag) {
      const int64_t step = source_->bytes() / (1 << (tag % 12));
      std::vector<SendPiece> pieces;
      for (int64_t at = 0; at < source_->bytes(); at += step) {
        pieces.push_back({source_->data() + at, step});
      }
      std::reverse(pieces.begin(), pieces.end());
      link_->Send(tag, std::move(pieces), [this](absl::Status status) {
        EXPECT_TRUE(status.ok()) << status;
        CountEnd();
      });
    }
  });
  EXPECT_TRUE(AwaitEnded(kMessages));
  peer_->AwaitEnded(kMessages);
  EXPECT_TRUE(peer_->Holds(std::byte{7}));
}

TEST_P(TransportPeerTest, TheSenderIsKilled) {
  ReceiveFromPeer();
  peer_->Kill();
  CloseAndAwaitAll();
  ExpectANewPeerWorks();
}

TEST_P(TransportPeerTest, TheReceiverIsKilled) {
  SendToPeer();
  peer_->Kill();
  CloseAndAwaitAll();
  OnLoop([&] {
    const auto again = transport_->Connect(address_);
    if (GetParam().refuses_the_dead) {
      EXPECT_TRUE(absl::IsUnavailable(again.status())) << again.status();
    }
  });
  ExpectANewPeerWorks();
}

TEST_P(TransportPeerTest, TheSenderIsStoppedAndGoesOnAfterClose) {
  ReceiveFromPeer();
  peer_->Stop();
  CloseAndAwaitAll();
  peer_->Continue();
  peer_->Ping();
  CheckPoison();
  ExpectANewPeerWorks();
}

TEST_P(TransportPeerTest, TheReceiverIsStoppedAndGoesOnAfterClose) {
  SendToPeer();
  peer_->Stop();
  CloseAndAwaitAll();
  peer_->Continue();
  peer_->Ping();
  ExpectANewPeerWorks();
}

TEST_P(TransportPeerTest, StoppedForAWhileAndThenAllArrives) {
  ReceiveFromPeer();
  peer_->Stop();
  peer_->Continue();
  EXPECT_TRUE(AwaitEnded(kMessages));
  peer_->AwaitEnded(kMessages);
}

TEST_P(TransportPeerTest, ClosedInMidTransferWhileThePeerGoesOn) {
  for (int round = 0; round < 3; ++round) {
    ReceiveFromPeer();
    CloseAndAwaitAll();
    peer_->Ping();
    Restart();
    SendToPeer();
    CloseAndAwaitAll();
    peer_->Ping();
    Restart();
  }
}

TEST_P(TransportPeerTest, CancelWhileTheSenderIsStoppedAndThenClose) {
  ReceiveFromPeer();
  peer_->Stop();
  OnLoop([&] {
    for (int tag = 0; tag < kMessages; ++tag) link_->Cancel(tag);
  });
  CloseAndAwaitAll();
  peer_->Continue();
  peer_->Ping();
}

// Wires that tell of a death by themselves.
class TellingPeerTest : public TransportPeerTest {
 protected:
  void KillAndAwaitAll() {
    peer_->Kill();
    EXPECT_TRUE(AwaitEnded(kMessages, kTold)) << "operations with a dead peer go on";
  }

  static constexpr absl::Duration kTold = absl::Seconds(2);
};

TEST_P(TellingPeerTest, OfASenderThatIsKilled) {
  ReceiveFromPeer();
  KillAndAwaitAll();
}

TEST_P(TellingPeerTest, OfAReceiverThatIsKilled) {
  SendToPeer();
  KillAndAwaitAll();
}

TEST_P(TellingPeerTest, OfAPeerThatIsKilledWhileTheLinkRests) {
  ReceiveFromPeer();
  ASSERT_TRUE(AwaitEnded(kMessages));
  peer_->Kill();
  const DeviceBuffer& buffer = *buffers_.emplace_back(memory_->Allocate(GetParam().message_bytes));
  memory_->Fill(buffer, kPoison);
  OnLoop([&] {
    link_->Receive(kMessages, {{buffer.data(), buffer.bytes()}}, [this](absl::Status status) {
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
      CountEnd();
    });
  });
  EXPECT_TRUE(AwaitEnded(kMessages + 1, kTold));
}

TEST_P(TellingPeerTest, OfAPeerThatIsKilledBeforeItConnects) {
  address_ = peer_->Accept();
  peer_->Kill();
  OnLoop([&] {
    auto link = transport_->Connect(address_);
    ASSERT_TRUE(link.ok()) << link.status();
    link_ = *std::move(link);
    link_->Send(1, {{source_->data(), source_->bytes()}}, [this](absl::Status status) {
      EXPECT_TRUE(absl::IsUnavailable(status)) << status;
      CountEnd();
    });
  });
  EXPECT_TRUE(AwaitEnded(1, kTold));
}

std::string WireName(const testing::TestParamInfo<PeerWire>& info) { return info.param.name; }

std::vector<PeerWire> TellingWires() {
  std::vector<PeerWire> wires = PeerWires();
  std::erase_if(wires, [](const PeerWire& wire) { return !wire.tells_of_death; });
  return wires;
}

INSTANTIATE_TEST_SUITE_P(Wires, TransportPeerTest, testing::ValuesIn(PeerWires()), WireName);
INSTANTIATE_TEST_SUITE_P(Wires, TellingPeerTest, testing::ValuesIn(TellingWires()), WireName);

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "--peer") return longhaul::RunPeer(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
