// longhaul_standalone: router, prefill worker and decode worker in one process, joined by direct
// calls and the in-process transport: for laptops, for tests, and as the reference that the
// cluster's answers are held against.
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "common/base/log.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "common/engine/direct_prefill_client.h"
#include "common/engine/direct_worker_client.h"
#include "common/engine/worker_model.h"
#include "common/metrics/metric_registry.h"
#include "common/metrics/worker_metrics.h"
#include "common/process/flags.h"
#include "common/process/ready_file.h"
#include "common/process/stop_signal.h"
#include "common/runtime/run_and_wait.h"
#include "common/runtime/thread_loop.h"
#include "decode_worker/decode_metrics_feed.h"
#include "decode_worker/decode_worker.h"
#include "deploy/standalone/gpu_split.h"
#include "deploy/worker/model_flags.h"
#include "deploy/worker/model_stack.h"
#include "kv_transfer/in_process_transport.h"
#include "prefill_worker/prefill_metrics_feed.h"
#include "prefill_worker/prefill_worker.h"
#include "router/core/router_app.h"

ABSL_FLAG(std::string, name, "standalone", "name of this process in logs and metrics");
ABSL_FLAG(std::string, http, "127.0.0.1:8000", "host:port of the API; port 0 takes a free one");
ABSL_FLAG(std::string, served_model_name, "", "what clients call the model; empty: its own name");
ABSL_FLAG(
    std::vector<std::string>, decode_device, {},
    "CUDA's numbers of the decode worker's GPUs, as --device has the prefill worker's; empty: "
    "the same, each with half of --gpu_memory_share");
ABSL_FLAG(double, drain_s, 10, "how long a stopping process finishes what it has accepted");
ABSL_FLAG(std::string, ready_file, "", "written once the process listens");

namespace longhaul {
namespace {

constexpr char kPrefillAddress[] = "in-process";

absl::StatusOr<GpuSplit> GpuSplitFromFlags() {
  LH_ASSIGN_OR_RETURN(BackendChoice prefill, BackendChoiceFromFlags(WorkerRole::kPrefill));
  LH_ASSIGN_OR_RETURN(BackendChoice decode, BackendChoiceFromFlags(WorkerRole::kDecode));
  LH_ASSIGN_OR_RETURN(const std::vector<int> decode_devices,
                      ParseNumbers("--decode_device", absl::GetFlag(FLAGS_decode_device)));
  return SplitGpus(std::move(prefill), std::move(decode), decode_devices);
}

// What each of the two workers stands on.
absl::StatusOr<std::unique_ptr<ModelStack>> MakeStack(WorkerRole role,
                                                      const BackendChoice& choice) {
  LH_ASSIGN_OR_RETURN(std::vector<BackendRank> ranks, ChooseBackend(choice));
  auto stack = std::make_unique<ModelStack>(std::move(ranks));
  LH_RETURN_IF_ERROR(stack->Load(WorkerModelOptionsFromFlags(role)));
  return stack;
}

PrefillWorkerOptions PrefillOptions(const WorkerModel& model) {
  PrefillWorkerOptions options;
  options.model = model.file().config.name;
  options.incarnation = RandomId();
  options.fingerprint = model.fingerprint();
  options.context_tokens_max = model.file().config.context_tokens_max;
  options.scheduler.block_tokens = model.pool().layout.block_tokens;
  return options;
}

DecodeWorkerOptions DecodeOptions(const WorkerModel& model) {
  DecodeWorkerOptions options;
  options.model = model.file().config.name;
  options.incarnation = RandomId();
  options.fingerprint = model.fingerprint();
  options.vocab = model.file().config.vocab;
  options.eos_tokens = model.file().config.eos_tokens;
  options.scheduler.context_tokens_max = model.file().config.context_tokens_max;
  return options;
}

absl::StatusOr<RouterOptions> RouterOptionsFromFlags(const ModelConfig& config) {
  LH_ASSIGN_OR_RETURN(const HostPort http, ParseHostPort("--http", absl::GetFlag(FLAGS_http)));
  RouterOptions options;
  options.name = absl::GetFlag(FLAGS_name);
  options.served_model_name = absl::GetFlag(FLAGS_served_model_name);
  if (options.served_model_name.empty()) options.served_model_name = config.name;
  options.http.address = http.host;
  options.http.port = http.port;
  options.http.port_flag = "--http";
  options.metrics = std::make_shared<MetricRegistry>();
  options.started_s = std::chrono::duration_cast<std::chrono::seconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  return options;
}

absl::Status Serve(RouterOptions router_options, ModelStack& prefill_stack,
                   ModelStack& decode_stack) {
  const auto network = MakeInProcessNetwork();
  ThreadLoop transfer_loop({.name = "transfer"});
  InProcessTransport prefill_transport(&transfer_loop, network, &prefill_stack.kv_memory());
  InProcessTransport decode_transport(&transfer_loop, network, &decode_stack.kv_memory());
  ThreadLoop loop({.name = "workers", .spin_us = decode_stack.spin_us()});
  const PrefillWorkerOptions prefill_options = PrefillOptions(prefill_stack.model());
  DecodeWorkerOptions decode_options = DecodeOptions(decode_stack.model());
  decode_options.transport = decode_transport.name();
  // The feeds write to it to the end, the router reads it.
  const std::shared_ptr<MetricRegistry> registry = router_options.metrics;
  std::unique_ptr<PrefillWorker> prefill;
  std::unique_ptr<DirectPrefillClient> prefill_client;
  std::unique_ptr<DecodeWorker> decode;
  std::unique_ptr<PrefillMetricsFeed> prefill_feed;
  std::unique_ptr<DecodeMetricsFeed> decode_feed;
  RunAndWait(loop, [&] {
    prefill_stack.Begin(loop, transfer_loop, &prefill_transport);
    decode_stack.Begin(loop, transfer_loop, &decode_transport);
    prefill = std::make_unique<PrefillWorker>(prefill_options, &loop, prefill_stack.executor(),
                                              prefill_stack.engine(), prefill_stack.model().pool());
    prefill_client = std::make_unique<DirectPrefillClient>(
        &loop, std::map<std::string, DirectPrefillClient::Worker>{
                   {kPrefillAddress, {&loop, prefill.get()}}});
    decode = std::make_unique<DecodeWorker>(decode_options, &loop, decode_stack.executor(),
                                            decode_stack.engine(), prefill_client.get(),
                                            decode_stack.model().pool());
    prefill_feed = std::make_unique<PrefillMetricsFeed>(
        &loop, prefill.get(), WorkerMetrics(*registry, "prefill", prefill_options.name),
        prefill_stack.FeedOptions(prefill_transport));
    decode_feed = std::make_unique<DecodeMetricsFeed>(
        &loop, decode.get(), WorkerMetrics(*registry, "decode", decode_options.name),
        decode_stack.FeedOptions(decode_transport));
  });

  const ModelFile& file = prefill_stack.model().file();
  absl::Status status;
  std::shared_ptr<Loop> router_loop;
  {
    const auto app = RouterApp::Start(
        std::move(router_options), {file.tokenizer, file.config.context_tokens_max, file.digest},
        [&](std::shared_ptr<Loop> owner) {
          router_loop = owner;
          ClusterMembers members;
          members.decode.push_back(
              {decode_options.name, "", MakeDirectWorkerClient(owner.get(), &loop, decode.get())});
          members.prefill.push_back({prefill_options.name, kPrefillAddress,
                                     MakeDirectStatusClient(owner.get(), &loop, prefill.get())});
          return members;
        });
    status = app.status();
    if (app.ok()) {
      status =
          WriteReadyFile(absl::GetFlag(FLAGS_ready_file),
                         {"standalone", absl::GetFlag(FLAGS_name), "", (*app)->http_address()});
      if (status.ok()) {
        LogInfo("listening", {{"http", (*app)->http_address()}});
        WaitForStopSignal();
        LogInfo("stopping", {{"drain_s", absl::GetFlag(FLAGS_drain_s)}});
      }
      (*app)->Shutdown(static_cast<int64_t>(absl::GetFlag(FLAGS_drain_s) * 1e6));
    }
  }
  RunAndWait(loop, [&] {
    decode_feed.reset();
    prefill_feed.reset();
    decode.reset();
    prefill_client.reset();
    prefill.reset();
    decode_stack.End();
    prefill_stack.End();
  });
  transfer_loop.Stop();
  loop.Stop();
  return status;
}

absl::Status Main() {
  BlockStopSignals();
  InitLog(absl::GetFlag(FLAGS_name), LogLevel::kInfo);
  LH_ASSIGN_OR_RETURN(const GpuSplit gpus, GpuSplitFromFlags());
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<ModelStack> prefill_stack,
                      MakeStack(WorkerRole::kPrefill, gpus.prefill));
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<ModelStack> decode_stack,
                      MakeStack(WorkerRole::kDecode, gpus.decode));
  if (!decode_stack->host_visible()) WarnOfWaysThroughHost(gpus);
  LH_ASSIGN_OR_RETURN(RouterOptions options,
                      RouterOptionsFromFlags(prefill_stack->model().file().config));
  return Serve(std::move(options), *prefill_stack, *decode_stack);
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  longhaul::ParseCommandLine(argc, argv,
                             "Router, prefill worker and decode worker in one process.");
  const absl::Status status = longhaul::Main();
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
