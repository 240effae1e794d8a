#include "absl/status/statusor.h"
#include "kv_transfer/ucx/ucx_transport.h"
#include "tests/contract/device_pieces.h"
#include "tests/contract/transport_contract_test.h"

namespace longhaul {
namespace {

std::unique_ptr<UcxTransport> MakeUcx(const UcxOptions& options) {
  auto transport = UcxTransport::Make(options);
  EXPECT_TRUE(transport.ok()) << transport.status();
  return *std::move(transport);
}

using UcxWorld = PolledWorld<UcxTransport>;

// A GPU's memory. Within one process cuda_ipc has no part: UCX stages the bytes through the host.
// transport_peer_test is where two processes do it.
class CudaUcxWorld final : public ThreadedWorld {
 public:
  CudaUcxWorld(const PieceMemory* memory, std::unique_ptr<UcxTransport> receiver,
               std::unique_ptr<UcxTransport> sender)
      : memory_(memory), receiver_(std::move(receiver)), sender_(std::move(sender)) {}

  Transport& receiver() override { return receiver_pieces_; }
  Transport& sender() override { return sender_pieces_; }

 private:
  Loop& receiver_loop() override { return receiver_loop_; }
  Loop& sender_loop() override { return sender_loop_; }

  const PieceMemory* const memory_;
  std::unique_ptr<UcxTransport> receiver_;
  std::unique_ptr<UcxTransport> sender_;
  DevicePiecesTransport receiver_pieces_{memory_, receiver_.get()};
  DevicePiecesTransport sender_pieces_{memory_, sender_.get()};
  ThreadLoop receiver_loop_{{.name = "receiver"}, receiver_.get()};
  ThreadLoop sender_loop_{{.name = "sender"}, sender_.get()};
};

std::unique_ptr<TransportWorld> MakeCudaWorld() {
  // Never closed: a process cannot count on CUDA while it ends.
  static const auto* const memory =
      new absl::StatusOr<std::unique_ptr<PieceMemory>>(PieceMemory::Open(MemoryKind::kCuda));
  if (!memory->ok()) return nullptr;
  const UcxOptions options{.memory = &(**memory)->memory()};
  absl::StatusOr<std::unique_ptr<UcxTransport>> receiver = UcxTransport::Make(options);
  if (absl::IsUnavailable(receiver.status())) return nullptr;  // a UCX without CUDA
  return std::make_unique<CudaUcxWorld>((*memory)->get(), *std::move(receiver), MakeUcx(options));
}

INSTANTIATE_TEST_SUITE_P(
    Ucx, TransportContractTest,
    testing::Values(TransportMaker{"SharedMemory",
                                   []() -> std::unique_ptr<TransportWorld> {
                                     return std::make_unique<UcxWorld>(MakeUcx({}), MakeUcx({}));
                                   }},
                    TransportMaker{"SharedMemoryOneLoop",
                                   []() -> std::unique_ptr<TransportWorld> {
                                     return std::make_unique<UcxWorld>(MakeUcx({}));
                                   }},
                    TransportMaker{
                        "Tcp",
                        []() -> std::unique_ptr<TransportWorld> {
                          const UcxOptions options{.transports = "tcp", .network_only = true};
                          return std::make_unique<UcxWorld>(MakeUcx(options), MakeUcx(options));
                        }},
                    TransportMaker{"Cuda", &MakeCudaWorld}),
    MakerName);

}  // namespace
}  // namespace longhaul
