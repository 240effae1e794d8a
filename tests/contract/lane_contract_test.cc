#include "absl/status/statusor.h"
#include "kv_transfer/lane/lane_transport.h"
#include "tests/contract/memory_lane.h"
#include "tests/contract/transport_contract_test.h"

namespace longhaul {
namespace {

std::unique_ptr<LaneTransport> MakeTransport() {
  auto transport = LaneTransport::Make(std::make_unique<MemoryLaneMaker>(), "127.0.0.1");
  EXPECT_TRUE(transport.ok()) << transport.status();
  return *std::move(transport);
}

class TwoLoopsWorld final : public ThreadedWorld {
 public:
  Transport& receiver() override { return *receiver_; }
  Transport& sender() override { return *sender_; }

 private:
  Loop& receiver_loop() override { return receiver_loop_; }
  Loop& sender_loop() override { return sender_loop_; }

  std::unique_ptr<LaneTransport> receiver_ = MakeTransport();
  std::unique_ptr<LaneTransport> sender_ = MakeTransport();
  ThreadLoop receiver_loop_{{.name = "receiver"}, receiver_.get()};
  ThreadLoop sender_loop_{{.name = "sender"}, sender_.get()};
};

class OneLoopWorld final : public ThreadedWorld {
 public:
  Transport& receiver() override { return *both_; }
  Transport& sender() override { return *both_; }

 private:
  Loop& receiver_loop() override { return loop_; }
  Loop& sender_loop() override { return loop_; }

  std::unique_ptr<LaneTransport> both_ = MakeTransport();
  ThreadLoop loop_{{.name = "both"}, both_.get()};
};

INSTANTIATE_TEST_SUITE_P(Lane, TransportContractTest,
                         testing::Values(TransportMaker{"OneLoop",
                                                        []() -> std::unique_ptr<TransportWorld> {
                                                          return std::make_unique<OneLoopWorld>();
                                                        }},
                                         TransportMaker{"TwoLoops",
                                                        []() -> std::unique_ptr<TransportWorld> {
                                                          return std::make_unique<TwoLoopsWorld>();
                                                        }}),
                         MakerName);

}  // namespace
}  // namespace longhaul
