#include "tests/contract/transport_contract_test.h"

#include <algorithm>
#include <numeric>

#include "kv_transfer/wire_transport.h"

namespace longhaul {
namespace {

constexpr int64_t kMiB = 1 << 20;

}  // namespace

std::vector<std::byte> TransportContractTest::RandomBytes(int64_t bytes) {
  std::vector<std::byte> message(bytes);
  uint64_t state = random_();
  for (std::byte& byte : message) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<std::byte>(state >> 56);
  }
  return message;
}

template <typename Piece, typename Buffer>
std::vector<Piece> TransportContractTest::Cut(Buffer& buffer, int count) {
  std::vector<int64_t> cuts = {0, static_cast<int64_t>(buffer.size())};
  for (int i = 1; i < count; ++i) cuts.push_back(random_() % (buffer.size() + 1));
  cuts.push_back(cuts.back());
  std::sort(cuts.begin(), cuts.end());
  std::vector<Piece> pieces;
  for (size_t i = 1; i < cuts.size(); ++i) {
    pieces.push_back({buffer.data() + cuts[i - 1], cuts[i] - cuts[i - 1]});
  }
  return pieces;
}

TEST_P(TransportContractTest, ReceivePostedBeforeTheSend) {
  TestLink link(*world_);
  const auto message = RandomBytes(12345);
  std::vector<std::byte> buffer(message.size());
  const Outcome* received = link.Receive(7, buffer);
  const Outcome* sent = link.Send(7, message);
  ASSERT_TRUE(link.AwaitAll());
  EXPECT_TRUE(received->status.ok()) << received->status;
  EXPECT_TRUE(sent->status.ok()) << sent->status;
  EXPECT_EQ(buffer, message);
}

TEST_P(TransportContractTest, ReceivePostedAfterTheSend) {
  TestLink link(*world_);
  for (const int64_t bytes : {int64_t{100}, 3 * kMiB, 20 * kMiB}) {
    const auto message = RandomBytes(bytes);
    std::vector<std::byte> buffer(message.size());
    const Outcome* sent = link.Send(bytes, message);
    link.ExpectWorks();  // whatever was sent before has reached the other end by now, or waits
    const Outcome* received = link.Receive(bytes, buffer);
    ASSERT_TRUE(link.AwaitAll());
    EXPECT_TRUE(received->status.ok()) << received->status;
    EXPECT_TRUE(sent->status.ok()) << sent->status;
    EXPECT_EQ(buffer, message) << bytes;
  }
}

TEST_P(TransportContractTest, EverySize) {
  TestLink link(*world_);
  TransferTag tag = 0;
  for (const int64_t bytes :
       {int64_t{0}, int64_t{1}, int64_t{2}, int64_t{7}, int64_t{64}, int64_t{1000}, int64_t{4096},
        int64_t{8191}, int64_t{8192}, int64_t{8193}, int64_t{65536}, int64_t{100'001}, kMiB - 1,
        kMiB, kMiB + 1, 8 * kMiB, 8 * kMiB + 1, 17 * kMiB + 13, 64 * kMiB}) {
    const auto message = RandomBytes(bytes);
    std::vector<std::byte> buffer(bytes);
    const Outcome* received = link.Receive(++tag, buffer);
    link.Send(tag, message);
    ASSERT_TRUE(link.AwaitAll()) << bytes;
    EXPECT_TRUE(received->status.ok()) << bytes << ": " << received->status;
    EXPECT_TRUE(buffer == message) << bytes;
  }
}

TEST_P(TransportContractTest, PiecesCutDifferentlyOnBothSides) {
  TestLink link(*world_);
  TransferTag tag = 0;
  for (const int64_t bytes : {int64_t{10}, int64_t{5000}, 2 * kMiB + 77, 19 * kMiB + 5}) {
    for (const auto& [sent_pieces, received_pieces] :
         {std::pair(1, 40), std::pair(40, 1), std::pair(3, 5), std::pair(700, 300)}) {
      const auto message = RandomBytes(bytes);
      std::vector<std::byte> buffer(bytes);
      const Outcome* received = link.Receive(++tag, Cut<ReceivePiece>(buffer, received_pieces));
      link.Send(tag, Cut<SendPiece>(message, sent_pieces));
      ASSERT_TRUE(link.AwaitAll()) << bytes;
      EXPECT_TRUE(received->status.ok()) << received->status;
      EXPECT_TRUE(buffer == message) << bytes << " in " << sent_pieces << " to " << received_pieces;
    }
  }
}

TEST_P(TransportContractTest, PiecesThatLieApart) {
  TestLink link(*world_);
  // Like KV blocks: equal pieces out of a larger pool, each side in an order of its own.
  constexpr int64_t kBlockBytes = 6144;
  constexpr int kBlocks = 200;
  const auto source = RandomBytes(kBlockBytes * kBlocks * 2);
  std::vector<std::byte> pool(source.size(), kPoison);
  std::vector<SendPiece> from;
  std::vector<ReceivePiece> to;
  std::vector<int> order(kBlocks);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random_);
  for (int i = 0; i < kBlocks; ++i) {
    from.push_back({source.data() + 2 * i * kBlockBytes, kBlockBytes});
    to.push_back({pool.data() + 2 * order[i] * kBlockBytes, kBlockBytes});
  }
  const Outcome* received = link.Receive(1, to);
  link.Send(1, from);
  ASSERT_TRUE(link.AwaitAll());
  ASSERT_TRUE(received->status.ok()) << received->status;
  for (int i = 0; i < kBlocks; ++i) {
    ASSERT_TRUE(std::equal(to[i].data, to[i].data + kBlockBytes, from[i].data)) << i;
    ASSERT_TRUE(std::all_of(to[i].data + kBlockBytes, to[i].data + 2 * kBlockBytes,
                            [](std::byte byte) { return byte == kPoison; }))
        << "bytes between the pieces were written, piece " << i;
  }
}

TEST_P(TransportContractTest, ManyTagsInAnyOrder) {
  TestLink link(*world_);
  constexpr int kTags = 64;
  std::vector<std::vector<std::byte>> messages, buffers;
  for (int i = 0; i < kTags; ++i) {
    messages.push_back(RandomBytes(i % 8 == 0 ? 600'000 : 100 + i * 50));
    buffers.emplace_back(messages.back().size());
  }
  std::vector<int> order(kTags);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random_);
  std::vector<const Outcome*> received;
  for (int i = 0; i < kTags / 2; ++i) received.push_back(link.Receive(order[i], buffers[order[i]]));
  for (int i = 0; i < kTags; ++i) link.Send(i, messages[i]);
  for (int i = kTags / 2; i < kTags; ++i) {
    received.push_back(link.Receive(order[i], buffers[order[i]]));
  }
  ASSERT_TRUE(link.AwaitAll());
  for (const Outcome* outcome : received) EXPECT_TRUE(outcome->status.ok()) << outcome->status;
  for (int i = 0; i < kTags; ++i) EXPECT_TRUE(buffers[i] == messages[i]) << i;
}

TEST_P(TransportContractTest, TagsMayUseAllBits) {
  TestLink link(*world_);
  const auto a = RandomBytes(500), b = RandomBytes(500);
  std::vector<std::byte> a_buffer(500), b_buffer(500);
  link.Receive(~0ull, a_buffer);
  link.Receive(1ull << 63, b_buffer);
  link.Send(1ull << 63, b);
  link.Send(~0ull, a);
  ASSERT_TRUE(link.AwaitAll());
  EXPECT_EQ(a_buffer, a);
  EXPECT_EQ(b_buffer, b);
}

TEST_P(TransportContractTest, DifferentSizesAreDataLoss) {
  TestLink link(*world_);
  TransferTag tag = 0;
  for (const auto& [sent_bytes, wanted_bytes] : {std::pair<int64_t, int64_t>(100, 101),
                                                 {101, 100},
                                                 {0, 1},
                                                 {1, 0},
                                                 {kMiB, kMiB + 1},
                                                 {32 * kMiB, 8 * kMiB},
                                                 {8 * kMiB, 32 * kMiB}}) {
    for (const bool receive_first : {true, false}) {
      const auto message = RandomBytes(sent_bytes);
      std::vector<std::byte> buffer(wanted_bytes);
      Outcome* received = nullptr;
      ++tag;
      if (receive_first) received = link.ReceiveThenPoison(tag, buffer);
      const Outcome* sent = link.Send(tag, message);
      if (!receive_first) received = link.ReceiveThenPoison(tag, buffer);
      ASSERT_TRUE(link.Await(received)) << sent_bytes << " to " << wanted_bytes;
      EXPECT_EQ(received->status.code(), absl::StatusCode::kDataLoss) << received->status;
      ASSERT_TRUE(link.Await(sent)) << sent_bytes << " to " << wanted_bytes;
      EXPECT_TRUE(
          std::all_of(buffer.begin(), buffer.end(), [](std::byte b) { return b == kPoison; }));
    }
  }
  link.ExpectWorks();
}

TEST_P(TransportContractTest, ALateSendNeverTouchesACancelledReceive) {
  TestLink link(*world_);
  TransferTag tag = 0;
  for (const int64_t bytes : {int64_t{1}, int64_t{5000}, kMiB, 20 * kMiB}) {
    const auto message = RandomBytes(bytes);
    std::vector<std::byte> buffer(bytes);
    const Outcome* received = link.ReceiveThenPoison(++tag, buffer);
    link.CancelReceive(tag);
    ASSERT_TRUE(link.Await(received));
    EXPECT_EQ(received->status.code(), absl::StatusCode::kCancelled);
    const Outcome* sent = link.Send(tag, message);
    ASSERT_TRUE(link.Await(sent)) << "a late send of " << bytes << " bytes was not drained";
    link.ExpectWorks();
    EXPECT_TRUE(
        std::all_of(buffer.begin(), buffer.end(), [](std::byte b) { return b == kPoison; }));
  }
}

TEST_P(TransportContractTest, ASendWithoutAReceiveBlocksNobody) {
  TestLink link(*world_);
  const auto message = RandomBytes(2 * kMiB);
  for (TransferTag tag = 1; tag <= 40; ++tag) link.Send(tag, message);
  link.ExpectWorks();
  link.CloseReceiver();
  link.CloseSender();
  EXPECT_TRUE(link.AwaitAll());
}

TEST_P(TransportContractTest, UnexpectedMessagesAreBounded) {
  TestLink link(*world_);
  constexpr int kTooMany = 3;
  const auto message = RandomBytes(300);
  std::vector<const Outcome*> sent;
  for (int i = 0; i < Link::kUnexpectedMax + kTooMany; ++i) sent.push_back(link.Send(i, message));
  for (int i = 0; i < 20; ++i) link.ExpectWorks();  // by now all have arrived
  // A send may end before its receive, so which were dropped only the receiver tells.
  int dropped = 0;
  std::vector<std::byte> buffer(message.size());
  for (int i = 0; i < Link::kUnexpectedMax + kTooMany; ++i) {
    std::fill(buffer.begin(), buffer.end(), std::byte{0});
    const Outcome* received = link.Receive(i, buffer);
    ASSERT_TRUE(link.Await(received)) << i;
    if (received->status.ok()) {
      EXPECT_EQ(buffer, message);
    } else {
      EXPECT_EQ(received->status.code(), absl::StatusCode::kDataLoss) << received->status;
      ++dropped;
    }
  }
  EXPECT_EQ(dropped, kTooMany);
  EXPECT_TRUE(link.AwaitAll());
  const auto* const wire = dynamic_cast<const WireTransport*>(&world_->receiver());
  if (wire == nullptr) return;
  world_->OnReceiver([&] { EXPECT_EQ(wire->drops().unexpected, kTooMany); });
}

TEST_P(TransportContractTest, CancelOfASendThatNobodyWantsEndsIt) {
  TestLink link(*world_);
  for (const int64_t bytes : {int64_t{10}, 20 * kMiB}) {
    const auto message = RandomBytes(bytes);
    const Outcome* sent = link.Send(bytes, message);
    link.CancelSend(bytes);
    ASSERT_TRUE(link.Await(sent));
    link.ExpectWorks();
  }
  link.CancelSend(999);
  link.CancelReceive(999);
  link.ExpectWorks();
}

TEST_P(TransportContractTest, CancelInMidTransferEndsBothOnceAndWritesNothingLater) {
  for (const bool cancel_receive : {true, false}) {
    TestLink link(*world_);
    const auto message = RandomBytes(64 * kMiB);
    std::vector<std::byte> buffer(message.size());
    const Outcome* received = link.ReceiveThenPoison(1, buffer);
    const Outcome* sent = link.Send(1, message);
    if (cancel_receive) {
      link.CancelReceive(1);
      ASSERT_TRUE(link.Await(received));
      ASSERT_TRUE(link.Await(sent));
      EXPECT_TRUE(received->status.ok() || absl::IsCancelled(received->status)) << received->status;
    } else {
      link.CancelSend(1);
      ASSERT_TRUE(link.Await(sent));
      EXPECT_TRUE(sent->status.ok() || absl::IsCancelled(sent->status)) << sent->status;
      link.CancelReceive(1);
      ASSERT_TRUE(link.Await(received));
    }
    link.ExpectWorks();
    EXPECT_TRUE(
        std::all_of(buffer.begin(), buffer.end(), [](std::byte b) { return b == kPoison; }));
  }
}

TEST_P(TransportContractTest, CloseByTheReceiverInMidTransfer) {
  TestLink link(*world_);
  std::vector<std::vector<std::byte>> messages, buffers;
  for (int i = 0; i < 6; ++i) {
    messages.push_back(RandomBytes(12 * kMiB));
    buffers.emplace_back(messages.back().size());
  }
  std::vector<const Outcome*> received, sent;
  for (int i = 0; i < 6; ++i) received.push_back(link.ReceiveThenPoison(i, buffers[i]));
  for (int i = 0; i < 6; ++i) sent.push_back(link.Send(i, messages[i]));
  link.CloseReceiver();
  for (const Outcome* outcome : received) {
    ASSERT_TRUE(link.Await(outcome));
    EXPECT_TRUE(outcome->status.ok() || absl::IsCancelled(outcome->status)) << outcome->status;
  }
  link.CloseSender();
  for (const Outcome* outcome : sent) ASSERT_TRUE(link.Await(outcome));
  TestLink other(*world_);
  other.ExpectWorks();
  for (const auto& buffer : buffers) {
    EXPECT_TRUE(
        std::all_of(buffer.begin(), buffer.end(), [](std::byte b) { return b == kPoison; }));
  }
}

TEST_P(TransportContractTest, CloseByTheSenderInMidTransfer) {
  TestLink link(*world_);
  std::vector<std::vector<std::byte>> messages, buffers;
  for (int i = 0; i < 6; ++i) {
    messages.push_back(RandomBytes(12 * kMiB));
    buffers.emplace_back(messages.back().size());
  }
  std::vector<const Outcome*> received, sent;
  for (int i = 0; i < 6; ++i) received.push_back(link.ReceiveThenPoison(i, buffers[i]));
  for (int i = 0; i < 6; ++i) sent.push_back(link.Send(i, messages[i]));
  link.CloseSender();
  for (const Outcome* outcome : sent) {
    ASSERT_TRUE(link.Await(outcome));
    EXPECT_TRUE(outcome->status.ok() || absl::IsCancelled(outcome->status)) << outcome->status;
  }
  link.CloseReceiver();
  for (const Outcome* outcome : received) ASSERT_TRUE(link.Await(outcome));
  for (const auto& buffer : buffers) {
    EXPECT_TRUE(
        std::all_of(buffer.begin(), buffer.end(), [](std::byte b) { return b == kPoison; }));
  }
}

TEST_P(TransportContractTest, AfterCloseEverythingIsCancelled) {
  TestLink link(*world_);
  const auto message = RandomBytes(100);
  std::vector<std::byte> buffer(100);
  const Outcome* waiting = link.Receive(1, buffer);
  link.CloseReceiver();
  link.CloseReceiver();
  ASSERT_TRUE(link.Await(waiting));
  EXPECT_TRUE(absl::IsCancelled(waiting->status)) << waiting->status;
  const Outcome* late = link.Receive(2, buffer);
  ASSERT_TRUE(link.Await(late));
  EXPECT_TRUE(absl::IsCancelled(late->status)) << late->status;
  link.CloseSender();
  const Outcome* sent = link.Send(1, message);
  ASSERT_TRUE(link.Await(sent));
  EXPECT_TRUE(absl::IsCancelled(sent->status)) << sent->status;
}

TEST_P(TransportContractTest, DestructionEndsEverything) {
  TestLink link(*world_);
  const auto message = RandomBytes(10 * kMiB);
  std::vector<std::byte> buffer(message.size()), other(100);
  link.Receive(1, buffer);
  link.Receive(2, other);
  link.Send(1, message);
  link.Send(3, message);
  link.DestroyReceiver();
  link.DestroySender();
  EXPECT_EQ(link.EndedOnce(), 4);
}

TEST_P(TransportContractTest, ACallbackMayStartTheNextOperation) {
  TestLink link(*world_);
  const auto message = RandomBytes(5000);
  std::vector<std::byte> buffer(message.size());
  int finished = 0;
  std::function<void(TransferTag)> receive_next = [&](TransferTag tag) {
    link.receiver().Receive(tag, {{buffer.data(), 5000}}, [&, tag](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      if (tag < 50) receive_next(tag + 1);
      world_->Look([&] { ++finished; });
    });
  };
  world_->OnReceiver([&] { receive_next(1); });
  for (TransferTag tag = 1; tag <= 50; ++tag) link.Send(tag, message);
  EXPECT_TRUE(world_->Await([&] { return finished == 50; }));
}

TEST_P(TransportContractTest, ManyLinksAtOnce) {
  std::deque<TestLink> links;
  const auto message = RandomBytes(300'000);
  std::vector<std::vector<std::byte>> buffers(12, std::vector<std::byte>(message.size()));
  for (int i = 0; i < 12; ++i) links.emplace_back(*world_);
  for (int i = 0; i < 12; ++i) links[i].Receive(5, buffers[i]);
  for (TestLink& link : links) link.Send(5, message);
  for (TestLink& link : links) ASSERT_TRUE(link.AwaitAll());
  for (const auto& buffer : buffers) EXPECT_TRUE(buffer == message);
  links.pop_front();
  links.pop_back();
  for (TestLink& link : links) link.ExpectWorks();
}

TEST_P(TransportContractTest, LinksComeAndGo) {
  for (int round = 0; round < 8; ++round) {
    TestLink link(*world_);
    link.ExpectWorks();
    EXPECT_FALSE(link.sender().path().empty());
    EXPECT_FALSE(link.receiver().path().empty());
  }
}

TEST_P(TransportContractTest, BytesThatAreNoAddressAreRefused) {
  TestLink link(*world_);
  std::vector<std::string> bad = {"",
                                  "x",
                                  "10.0.0.1:80",
                                  std::string(1000, '\0'),
                                  link.address() + "x",
                                  link.address().substr(0, link.address().size() / 2)};
  for (size_t i = 0; i < link.address().size(); ++i) {
    bad.push_back(link.address());
    bad.back()[i] ^= 0x41;
  }
  for (const std::string& address : bad) {
    world_->OnSender([&] {
      const auto connected = world_->sender().Connect(address);
      ASSERT_FALSE(connected.ok());
      EXPECT_TRUE(absl::IsInvalidArgument(connected.status()) ||
                  absl::IsUnavailable(connected.status()))
          << connected.status();
    });
  }
  link.ExpectWorks();
}

TEST_P(TransportContractTest, TheAddressOfAClosedLinkGivesNoLinkOrADeadOne) {
  std::string address;
  {
    TestLink link(*world_);
    address = link.address();
  }
  const auto message = RandomBytes(100'000);
  Outcome outcome;
  bool connected = false;
  world_->OnSender([&] {
    auto link = world_->sender().Connect(address);
    if (!link.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(link.status())) << link.status();
      return;
    }
    connected = true;
    (*link)->Send(1, {{message.data(), 100'000}}, [&](absl::Status status) {
      world_->Look([&] {
        ++outcome.times;
        outcome.status = status;
      });
    });
  });
  if (connected) {
    EXPECT_EQ(outcome.times, 1);
    EXPECT_FALSE(outcome.status.ok());
  }
  TestLink(*world_).ExpectWorks();
}

}  // namespace longhaul
