#include "kv_transfer/ucx/ucx_transport.h"
#include "tests/contract/transport_contract_test.h"

namespace longhaul {
namespace {

std::unique_ptr<UcxTransport> MakeUcx(const UcxOptions& options) {
  auto transport = UcxTransport::Make(options);
  EXPECT_TRUE(transport.ok()) << transport.status();
  return *std::move(transport);
}

class UcxWorld final : public ThreadedWorld {
 public:
  explicit UcxWorld(const UcxOptions& options)
      : receiver_(MakeUcx(options)), sender_(MakeUcx(options)) {}

  Transport& receiver() override { return *receiver_; }
  Transport& sender() override { return *sender_; }

 private:
  Loop& receiver_loop() override { return receiver_loop_; }
  Loop& sender_loop() override { return sender_loop_; }

  std::unique_ptr<UcxTransport> receiver_;
  std::unique_ptr<UcxTransport> sender_;
  ThreadLoop receiver_loop_{{.name = "receiver"}, receiver_.get()};
  ThreadLoop sender_loop_{{.name = "sender"}, sender_.get()};
};

class UcxOneLoopWorld final : public ThreadedWorld {
 public:
  Transport& receiver() override { return *both_; }
  Transport& sender() override { return *both_; }

 private:
  Loop& receiver_loop() override { return loop_; }
  Loop& sender_loop() override { return loop_; }

  std::unique_ptr<UcxTransport> both_ = MakeUcx({});
  ThreadLoop loop_{{.name = "both"}, both_.get()};
};

INSTANTIATE_TEST_SUITE_P(
    Ucx, TransportContractTest,
    testing::Values(TransportMaker{"SharedMemory",
                                   []() -> std::unique_ptr<TransportWorld> {
                                     return std::make_unique<UcxWorld>(UcxOptions{});
                                   }},
                    TransportMaker{"SharedMemoryOneLoop",
                                   []() -> std::unique_ptr<TransportWorld> {
                                     return std::make_unique<UcxOneLoopWorld>();
                                   }},
                    TransportMaker{"Tcp",
                                   []() -> std::unique_ptr<TransportWorld> {
                                     return std::make_unique<UcxWorld>(
                                         UcxOptions{.transports = "tcp", .network_only = true});
                                   }}),
    MakerName);

}  // namespace
}  // namespace longhaul
