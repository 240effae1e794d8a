#include <poll.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "kv_transfer/lane/control_connection.h"
#include "kv_transfer/lane/lane_transport.h"
#include "tests/contract/socket_lane.h"
#include "tests/contract/transport_contract_test.h"

namespace longhaul {
namespace {

std::unique_ptr<LaneTransport> MakeTransport() {
  auto transport = LaneTransport::Make(std::make_unique<SocketLaneMaker>(), "127.0.0.1");
  EXPECT_TRUE(transport.ok()) << transport.status();
  return *std::move(transport);
}

using LaneWorld = PolledWorld<LaneTransport>;

INSTANTIATE_TEST_SUITE_P(Lane, TransportContractTest,
                         testing::Values(TransportMaker{"OneLoop",
                                                        []() -> std::unique_ptr<TransportWorld> {
                                                          return std::make_unique<LaneWorld>(
                                                              MakeTransport());
                                                        }},
                                         TransportMaker{"TwoLoops",
                                                        []() -> std::unique_ptr<TransportWorld> {
                                                          return std::make_unique<LaneWorld>(
                                                              MakeTransport(), MakeTransport());
                                                        }}),
                         MakerName);

// Who finds the port may be anybody.
TEST(LaneTransportTest, WhoKnowsNoLinkIsTurnedAwayAndCounted) {
  LaneWorld world(MakeTransport());
  const auto& transport = dynamic_cast<const LaneTransport&>(world.receiver());
  std::string address;
  std::unique_ptr<Link> receiver, sender;
  world.OnReceiver([&] {
    auto accepted = world.receiver().Accept();
    ASSERT_TRUE(accepted.ok()) << accepted.status();
    receiver = std::move(accepted->link);
    address = accepted->address;
  });
  int port = 0;
  ASSERT_TRUE(absl::SimpleAtoi(std::vector<std::string>(absl::StrSplit(address, '|'))[2], &port));
  for (const auto& [kind, tag] :
       {std::pair(LaneMessage::Kind::kHello, 12345), std::pair(LaneMessage::Kind::kWant, 1)}) {
    const auto socket = ConnectTo("127.0.0.1", port);
    ASSERT_TRUE(socket.ok()) << socket.status();
    pollfd writable{*socket, POLLOUT, 0};
    ASSERT_EQ(poll(&writable, 1, 10'000), 1);
    std::string frame;
    LaneMessage{kind, static_cast<TransferTag>(tag), {}}.AppendTo(frame);
    ASSERT_EQ(write(*socket, frame.data(), frame.size()), std::ssize(frame));
    pollfd closed{*socket, POLLIN, 0};
    ASSERT_EQ(poll(&closed, 1, 10'000), 1);
    char none = 0;
    EXPECT_EQ(read(*socket, &none, 1), 0);
    close(*socket);
  }
  std::byte from{7}, to{0};
  Outcome received;
  world.OnReceiver([&] {
    EXPECT_EQ(transport.drops().foreign, 2);
    auto connected = world.receiver().Connect(address);
    ASSERT_TRUE(connected.ok()) << connected.status();
    sender = *std::move(connected);
    sender->Send(1, {{&from, 1}}, [](absl::Status) {});
    receiver->Receive(1, {{&to, 1}}, [&](absl::Status status) {
      world.Look([&] { received = {1, status}; });
    });
  });
  EXPECT_TRUE(world.Await([&] { return received.times > 0; }));
  EXPECT_TRUE(received.status.ok()) << received.status;
  EXPECT_EQ(to, from);
  world.OnReceiver([&] {
    sender = nullptr;
    receiver = nullptr;
  });
}

}  // namespace
}  // namespace longhaul
