#include <algorithm>

#include "tests/contract/transport_contract_test.h"

namespace longhaul {

TestLink::TestLink(TransportWorld& world) : world_(world) {
  world_.OnReceiver([&] {
    auto accepted = world_.receiver().Accept();
    ASSERT_TRUE(accepted.ok()) << accepted.status();
    receiver_ = std::move(accepted->link);
    address_ = accepted->address;
  });
  world_.OnSender([&] {
    auto link = world_.sender().Connect(address_);
    ASSERT_TRUE(link.ok()) << link.status();
    sender_ = *std::move(link);
  });
}

TestLink::~TestLink() {
  DestroySender();
  DestroyReceiver();
  EXPECT_EQ(EndedOnce(), static_cast<int>(outcomes_.size())) << "operations that never ended";
}

Outcome* TestLink::NewOutcome() {
  Outcome* outcome = nullptr;
  world_.Look([&] { outcome = &outcomes_.emplace_back(); });
  return outcome;
}

TransferDone TestLink::Record(Outcome* outcome, std::vector<std::byte>* poisoned) {
  return [this, outcome, poisoned](absl::Status status) {
    world_.Look([&] {
      ++outcome->times;
      outcome->status = std::move(status);
      if (poisoned != nullptr) std::fill(poisoned->begin(), poisoned->end(), kPoison);
    });
  };
}

Outcome* TestLink::Send(TransferTag tag, std::vector<SendPiece> pieces) {
  Outcome* outcome = NewOutcome();
  world_.OnSender([&] {
    sender_->Send(tag, std::move(pieces), Record(outcome));
    world_.Look([&] { EXPECT_EQ(outcome->times, 0) << "done came from inside Send"; });
  });
  return outcome;
}

Outcome* TestLink::Receive(TransferTag tag, std::vector<ReceivePiece> pieces) {
  Outcome* outcome = NewOutcome();
  world_.OnReceiver([&] {
    receiver_->Receive(tag, std::move(pieces), Record(outcome));
    world_.Look([&] { EXPECT_EQ(outcome->times, 0) << "done came from inside Receive"; });
  });
  return outcome;
}

Outcome* TestLink::Send(TransferTag tag, const std::vector<std::byte>& message) {
  return Send(tag, {SendPiece{message.data(), static_cast<int64_t>(message.size())}});
}

Outcome* TestLink::Receive(TransferTag tag, std::vector<std::byte>& buffer) {
  return Receive(tag, {ReceivePiece{buffer.data(), static_cast<int64_t>(buffer.size())}});
}

Outcome* TestLink::ReceiveThenPoison(TransferTag tag, std::vector<std::byte>& buffer) {
  Outcome* outcome = NewOutcome();
  world_.OnReceiver([&] {
    receiver_->Receive(tag, {ReceivePiece{buffer.data(), static_cast<int64_t>(buffer.size())}},
                       Record(outcome, &buffer));
  });
  return outcome;
}

void TestLink::CancelSend(TransferTag tag) {
  world_.OnSender([&] { sender_->Cancel(tag); });
}
void TestLink::CancelReceive(TransferTag tag) {
  world_.OnReceiver([&] { receiver_->Cancel(tag); });
}
void TestLink::CloseSender() {
  world_.OnSender([&] { sender_->Close(); });
}
void TestLink::CloseReceiver() {
  world_.OnReceiver([&] { receiver_->Close(); });
}
void TestLink::DestroySender() {
  world_.OnSender([&] { sender_.reset(); });
}
void TestLink::DestroyReceiver() {
  world_.OnReceiver([&] { receiver_.reset(); });
}

bool TestLink::Await(const Outcome* outcome) {
  return world_.Await([&] { return outcome->times > 0; });
}

bool TestLink::AwaitAll() {
  return world_.Await([&] {
    return std::all_of(outcomes_.begin(), outcomes_.end(),
                       [](const Outcome& outcome) { return outcome.times > 0; });
  });
}

int TestLink::EndedOnce() {
  int ended = 0;
  world_.Look([&] {
    for (const Outcome& outcome : outcomes_) {
      EXPECT_LE(outcome.times, 1) << "done came more than once";
      ended += outcome.times > 0;
    }
  });
  return ended;
}

void TestLink::ExpectWorks() {
  const std::vector<std::byte> message(100'000, std::byte{42});
  std::vector<std::byte> buffer(message.size());
  const TransferTag tag = next_probe_++;
  const Outcome* received = Receive(tag, buffer);
  const Outcome* sent = Send(tag, message);
  ASSERT_TRUE(Await(received) && Await(sent)) << "the link no longer works";
  EXPECT_TRUE(received->status.ok()) << received->status;
  EXPECT_EQ(buffer, message);
}

}  // namespace longhaul
