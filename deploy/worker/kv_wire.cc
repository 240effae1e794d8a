#include "deploy/worker/kv_wire.h"

#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "kv_transfer/ucx/ucx_metrics_feed.h"
#include "kv_transfer/ucx/ucx_self_test.h"

ABSL_FLAG(std::string, ucx_transports, longhaul::UcxOptions().transports,
          "what UCX may use, as in UCX_TLS");
ABSL_FLAG(int, self_test_fd, -1,
          "internal: be the second process of a self-test, told by this file");

namespace longhaul {
namespace {

UcxOptions UcxOptionsFromFlags(KvMemory* memory) {
  UcxOptions options;
  options.transports = absl::GetFlag(FLAGS_ucx_transports);
  options.memory = memory;
  return options;
}

}  // namespace

absl::Status KvWire::CarriesDeviceMemory() { return UcxTransport::CarriesDeviceMemory(); }

bool KvWire::IsSelfTest() { return absl::GetFlag(FLAGS_self_test_fd) >= 0; }

absl::Status KvWire::ServeSelfTest(KvMemory* memory) {
  return SendForUcxSelfTest(absl::GetFlag(FLAGS_self_test_fd), UcxOptionsFromFlags(memory));
}

KvWire::KvWire(std::unique_ptr<UcxTransport> transport)
    : transport_(std::move(transport)),
      loop_({.name = "transfer", .spin_us = 50}, transport_.get()) {}

absl::StatusOr<std::unique_ptr<KvWire>> KvWire::Open(KvMemory* memory,
                                                     const BackendChoice& choice) {
  LH_ASSIGN_OR_RETURN(std::unique_ptr<UcxTransport> transport,
                      UcxTransport::Make(UcxOptionsFromFlags(memory)));
  auto wire = std::unique_ptr<KvWire>(new KvWire(std::move(transport)));
  wire->speed_ = RunUcxSelfTest(
      &wire->loop_, wire->transport_.get(), memory,
      {"--backend=cuda", absl::StrCat("--device=", choice.devices[0]), "--gpu_memory_share=0.05"});
  return wire;
}

void KvWire::Publish(WorkerMetrics metrics) {
  if (speed_.ok()) {
    metrics.link_bandwidth_bytes_per_second.With({"self", transport_->name()})
        .Set(speed_->bytes_per_s);
  }
  PublishUcxDrops(&loop_, transport_.get(), std::move(metrics));
}

}  // namespace longhaul
