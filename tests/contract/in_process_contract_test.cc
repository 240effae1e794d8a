#include "common/runtime/thread_loop.h"
#include "kv_transfer/in_process_transport.h"
#include "tests/contract/transport_contract_test.h"

namespace longhaul {
namespace {

class OneLoopWorld final : public ThreadedWorld {
 public:
  Transport& receiver() override { return receiver_; }
  Transport& sender() override { return sender_; }

 private:
  Loop& receiver_loop() override { return loop_; }
  Loop& sender_loop() override { return loop_; }

  ThreadLoop loop_{{.name = "both"}};
  std::shared_ptr<InProcessNetwork> network_ = MakeInProcessNetwork();
  InProcessTransport receiver_{&loop_, network_};
  InProcessTransport sender_{&loop_, network_};
};

class TwoLoopsWorld final : public ThreadedWorld {
 public:
  Transport& receiver() override { return receiver_; }
  Transport& sender() override { return sender_; }

 private:
  Loop& receiver_loop() override { return receiver_loop_; }
  Loop& sender_loop() override { return sender_loop_; }

  ThreadLoop receiver_loop_{{.name = "receiver"}};
  ThreadLoop sender_loop_{{.name = "sender"}};
  std::shared_ptr<InProcessNetwork> network_ = MakeInProcessNetwork();
  InProcessTransport receiver_{&receiver_loop_, network_};
  InProcessTransport sender_{&sender_loop_, network_};
};

INSTANTIATE_TEST_SUITE_P(InProcess, TransportContractTest,
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
