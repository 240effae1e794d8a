#include "deploy/worker/worker_process.h"

#include <cstdint>
#include <utility>

#include "absl/flags/flag.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/process/ready_file.h"
#include "common/process/stop_signal.h"
#include "common/process/version.h"
#include "common/runtime/run_and_wait.h"
#include "deploy/worker/worker_admin.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:0",
          "host:port of the control plane; port 0 takes a free one");
ABSL_FLAG(std::string, http, "127.0.0.1:0",
          "host:port of /metrics, /livez, /readyz; port 0 takes a free one");
ABSL_FLAG(double, drain_s, 10, "how long a stopping worker finishes what it has accepted");
ABSL_FLAG(std::string, ready_file, "", "written once the worker listens");

namespace longhaul {

absl::Status WorkerProcess::Run(WorkerRole role, const std::string& name,
                                absl::FunctionRef<absl::Status(WorkerProcess&)> work) {
  BlockStopSignals();
  InitLog(name, LogLevel::kInfo);
  LH_ASSIGN_OR_RETURN(BackendChoice choice, BackendChoiceFromFlags(role));
  choice.carries_device_memory = KvWire::CarriesDeviceMemory;
  LH_ASSIGN_OR_RETURN(std::vector<BackendRank> ranks, ChooseBackend(choice));
  ModelStack stack(std::move(ranks));
  if (KvWire::IsSelfTest()) return KvWire::ServeSelfTest(&stack.kv_memory());
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<KvWire> wire, KvWire::Open(&stack.kv_memory(), choice));
  LH_RETURN_IF_ERROR(stack.Load(WorkerModelOptionsFromFlags(role)));
  WorkerProcess process(role, name, &stack, wire.get());
  return work(process);
}

WorkerProcess::WorkerProcess(WorkerRole role, const std::string& name, ModelStack* stack,
                             KvWire* wire)
    : role_(role == WorkerRole::kPrefill ? "prefill" : "decode"),
      name_(name),
      stack_(stack),
      wire_(wire),
      metrics_(registry_, role_, name_),
      loop_(std::make_shared<ThreadLoop>(
          ThreadLoopOptions{.name = "loop", .spin_us = stack->spin_us()})) {
  PublishBuildInfo(registry_, role_, name_, kVersion, model().file().config.name);
  wire_->Publish(metrics_);
  RunAndWait(*loop_, [&] { stack_->Begin(*loop_, wire_->loop(), wire_->transport()); });
}

WorkerProcess::~WorkerProcess() {
  RunAndWait(*loop_, [&] { stack_->End(); });
  wire_->loop().Stop();
  loop_->Stop();
}

Fingerprint WorkerProcess::fingerprint() const {
  Fingerprint fingerprint = model().fingerprint();
  fingerprint.set_kv_transport(transport().name());
  return fingerprint;
}

std::string WorkerProcess::ListenAddress() { return absl::GetFlag(FLAGS_listen); }

absl::Status WorkerProcess::Serve(absl::StatusOr<std::unique_ptr<RpcServer>> server,
                                  absl::FunctionRef<void()> drain) {
  LH_RETURN_IF_ERROR(server.status());
  const double drain_s = absl::GetFlag(FLAGS_drain_s);
  // Operators see it until its last call has ended.
  WorkerAdmin admin(role_, name_, &registry_);
  const std::unique_ptr<RpcServer> calls = *std::move(server);
  LH_RETURN_IF_ERROR(admin.Start(absl::GetFlag(FLAGS_http)));
  LH_RETURN_IF_ERROR(WriteReadyFile(absl::GetFlag(FLAGS_ready_file),
                                    {role_, name_, calls->address(), admin.address()}));
  LogInfo("listening", {{"grpc", calls->address()}, {"http", admin.address()}});
  WaitForStopSignal();
  LogInfo("stopping", {{"drain_s", drain_s}});
  admin.SetDraining();
  RunAndWait(*loop_, drain);
  calls->Stop(static_cast<int64_t>(drain_s * 1e6));
  return absl::OkStatus();
}

}  // namespace longhaul
