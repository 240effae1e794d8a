// The contract suite of the Transport door: transport_contract_test.cc holds the cases, each
// maker's file instantiates them: INSTANTIATE_TEST_SUITE_P(Ucx, TransportContractTest,
// testing::Values(TransportMaker{...}), MakerName).
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/contract/transport_world.h"

namespace longhaul {

// One link with both its ends, its buffers and what became of its operations.
class TestLink {
 public:
  explicit TestLink(TransportWorld& world);
  ~TestLink();

  Outcome* Send(TransferTag tag, std::vector<SendPiece> pieces);
  Outcome* Receive(TransferTag tag, std::vector<ReceivePiece> pieces);
  Outcome* Send(TransferTag tag, const std::vector<std::byte>& message);
  Outcome* Receive(TransferTag tag, std::vector<std::byte>& buffer);
  // Like Receive; at `done` the buffer is filled with kPoison, as its next owner would.
  Outcome* ReceiveThenPoison(TransferTag tag, std::vector<std::byte>& buffer);

  void CancelSend(TransferTag tag);
  void CancelReceive(TransferTag tag);
  void CloseSender();
  void CloseReceiver();
  void DestroySender();
  void DestroyReceiver();

  bool Await(const Outcome* outcome);
  bool AwaitAll();  // every operation so far
  // Expects that no operation has ended more than once, and returns how many have ended.
  int EndedOnce();
  // Sends and receives a message that tells whether the link still works.
  void ExpectWorks();

  const std::string& address() const { return address_; }
  Link& sender() { return *sender_; }
  Link& receiver() { return *receiver_; }

 private:
  Outcome* NewOutcome();
  TransferDone Record(Outcome* outcome, std::vector<std::byte>* poisoned = nullptr);

  TransportWorld& world_;
  std::string address_;
  std::unique_ptr<Link> receiver_;
  std::unique_ptr<Link> sender_;
  std::deque<Outcome> outcomes_;
  TransferTag next_probe_ = 1ull << 60;
};

constexpr std::byte kPoison{0xA5};

class TransportContractTest : public testing::TestWithParam<TransportMaker> {
 protected:
  TransportContractTest() : world_(GetParam().make()) {}
  void SetUp() override {
    if (world_ == nullptr) GTEST_SKIP() << "not on this machine";
  }

  std::vector<std::byte> RandomBytes(int64_t bytes);
  // Cuts `buffer` at random places into about `count` pieces, some of no bytes.
  template <typename Piece, typename Buffer>
  std::vector<Piece> Cut(Buffer& buffer, int count);

  std::unique_ptr<TransportWorld> world_;
  std::mt19937_64 random_{20261123};
};

inline std::string MakerName(const testing::TestParamInfo<TransportMaker>& info) {
  return info.param.name;
}

}  // namespace longhaul
