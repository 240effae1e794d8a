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

}  // namespace
}  // namespace longhaul
