#include "deploy/worker/kv_wire.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "kv_transfer/lane/lane_transport.h"
#include "kv_transfer/nccl/nccl_lane.h"
#include "kv_transfer/self_test_process.h"
#include "kv_transfer/ucx/ucx_transport.h"

ABSL_FLAG(std::string, kv_transport, "ucx",
          "how KV goes from worker to worker, the same on all: ucx, or nccl, which joins GPUs");
ABSL_FLAG(std::string, kv_host, "127.0.0.1",
          "nccl: numeric address at which this machine's workers are reached by the others");
ABSL_FLAG(std::string, ucx_transports, longhaul::UcxOptions().transports,
          "what UCX may use, as in UCX_TLS");
ABSL_FLAG(int, self_test_fd, -1,
          "internal: be the second process of a self-test, told by this file");

namespace longhaul {
namespace {

constexpr char kUcx[] = "ucx";
constexpr char kNccl[] = "nccl";

constexpr int64_t kPublishPeriodUs = 1'000'000;

// NCCL's way through the host moves 55 GB/s at best, a PCIe 5 card's rate; its way over PCIe
// alone, of an older card, is what the second floor leaves.
constexpr double kNcclNvLinkFloor = 60e9;
constexpr double kNcclPeerFloor = 15e9;

bool UsesNccl() { return absl::GetFlag(FLAGS_kv_transport) == kNccl; }

absl::StatusOr<std::unique_ptr<WireTransport>> MakeNcclTransport(KvMemory* memory) {
  LH_ASSIGN_OR_RETURN(std::unique_ptr<LaneMaker> lanes, MakeNcclLanes({.memory = memory}));
  absl::StatusOr<std::unique_ptr<LaneTransport>> transport =
      LaneTransport::Make(std::move(lanes), absl::GetFlag(FLAGS_kv_host));
  if (transport.ok()) return *std::move(transport);
  return absl::Status(transport.status().code(),
                      absl::StrCat("--kv_host: ", transport.status().message()));
}

absl::StatusOr<std::unique_ptr<WireTransport>> MakeTransport(KvMemory* memory) {
  const std::string name = absl::GetFlag(FLAGS_kv_transport);
  if (name == kNccl) return MakeNcclTransport(memory);
  if (name == kUcx) {
    UcxOptions options;
    options.transports = absl::GetFlag(FLAGS_ucx_transports);
    options.memory = memory;
    return UcxTransport::Make(options);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--kv_transport is ", name, "; it must be ucx or nccl"));
}

// From where the second process of a self-test sends, and what to expect of the way.
struct SelfTestSender {
  int device = 0;
  SelfTestOptions options;
};

// NCCL joins two GPUs only. Error: Unavailable where there is no second one.
absl::StatusOr<SelfTestSender> NcclSelfTestSender(int device) {
  if (CudaDevices() < 2) {
    return absl::UnavailableError(
        "NCCL joins different GPUs only, and this process sees one: hand-offs will tell");
  }
  SelfTestSender sender{.device = device == 0 ? 1 : 0, .options = kDeviceSelfTest};
  const CudaReach reach = CudaReachOf(device, sender.device);
  sender.options.floor_bytes_per_s = reach == CudaReach::kNvLink ? kNcclNvLinkFloor
                                     : reach == CudaReach::kPeer ? kNcclPeerFloor
                                                                 : 0;
  sender.options.advice =
      "NCCL takes the GPUs' memory through the host although they reach each other: look at its "
      "NCCL_P2P_DISABLE and NCCL_P2P_LEVEL, and at its own account with NCCL_DEBUG=INFO; in "
      "containers give the workers of one host the same pid and ipc namespaces; KV transfers will "
      "limit the time to the first token";
  LogInfo("nccl_way",
          {{"from_gpu", sender.device},
           {"to_gpu", device},
           {"way", reach == CudaReach::kNvLink ? "nvlink"
                   : reach == CudaReach::kPeer ? "pcie"
                                               : "host, the GPUs do not reach each other"}});
  return sender;
}

// On the transfer thread, whose the counts are.
void PublishDrops(Loop* loop, const WireTransport* transport,
                  const std::shared_ptr<WorkerMetrics>& metrics) {
  const auto raise = [&](absl::string_view kind, int64_t total) {
    metrics->stale_messages_total.With({kind}).RaiseTo(static_cast<double>(total));
  };
  raise("late_kv", transport->drops().late);
  raise("unexpected_kv", transport->drops().unexpected);
  raise("foreign_kv", transport->drops().foreign);
  loop->PostAfter(kPublishPeriodUs, [=] { PublishDrops(loop, transport, metrics); });
}

}  // namespace

absl::Status KvWire::CarriesDeviceMemory() {
  return UsesNccl() ? absl::OkStatus() : UcxTransport::CarriesDeviceMemory();
}

bool KvWire::IsSelfTest() { return absl::GetFlag(FLAGS_self_test_fd) >= 0; }

absl::Status KvWire::ServeSelfTest(KvMemory* memory) {
  const int control_fd = absl::GetFlag(FLAGS_self_test_fd);
  absl::StatusOr<std::unique_ptr<WireTransport>> transport = MakeTransport(memory);
  if (!transport.ok()) {
    RefuseSelfTest(control_fd, transport.status());
    return transport.status();
  }
  KvWire wire(*std::move(transport));
  return longhaul::ServeSelfTest(control_fd, &wire.loop_, wire.transport(), memory);
}

KvWire::KvWire(std::unique_ptr<WireTransport> transport)
    : transport_(std::move(transport)),
      loop_({.name = "transfer", .spin_us = 50}, transport_.get()) {}

absl::StatusOr<std::unique_ptr<KvWire>> KvWire::Open(KvMemory* memory,
                                                     const BackendChoice& choice) {
  if (UsesNccl() && choice.tensor_parallel > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv_transport=nccl takes KV from one GPU, not from the ranks of "
                     "--tensor_parallel=",
                     choice.tensor_parallel, ": use --kv_transport=ucx"));
  }
  LH_ASSIGN_OR_RETURN(std::unique_ptr<WireTransport> transport, MakeTransport(memory));
  auto wire = std::unique_ptr<KvWire>(new KvWire(std::move(transport)));
  wire->speed_ = wire->Measure(memory, choice.devices[0]);
  return wire;
}

absl::StatusOr<LinkSpeed> KvWire::Measure(KvMemory* memory, int device) {
  if (memory->kind() == MemoryKind::kHost) return RunSelfTestAndWait(&loop_, transport(), {});
  absl::StatusOr<SelfTestSender> sender = SelfTestSender{device, kDeviceSelfTest};
  if (UsesNccl()) sender = NcclSelfTestSender(device);
  if (!sender.ok()) {
    LogInfo("transport_not_measured",
            {{"transport", transport_->name()}, {"why", sender.status().message()}});
    return sender.status();
  }
  return RunSelfTestWithProcess(
      &loop_, transport(), memory, sender->options,
      {"--backend=cuda", absl::StrCat("--device=", sender->device), "--gpu_memory_share=0.05",
       absl::StrCat("--kv_transport=", transport_->name()),
       absl::StrCat("--ucx_transports=", absl::GetFlag(FLAGS_ucx_transports))});
}

void KvWire::Publish(WorkerMetrics metrics) {
  if (speed_.ok()) {
    metrics.link_bandwidth_bytes_per_second.With({"self", transport_->name()})
        .Set(speed_->bytes_per_s);
  }
  loop_.Post([this, shared = std::make_shared<WorkerMetrics>(std::move(metrics))] {
    PublishDrops(&loop_, transport_.get(), shared);
  });
}

}  // namespace longhaul
