// longhaul_standalone: router, prefill worker and decode worker in one process, joined by direct
// calls and the in-process transport: for laptops, for tests, and as the reference that the
// cluster's answers are held against.
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "common/base/log.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "common/engine/direct_prefill_client.h"
#include "common/engine/direct_worker_client.h"
#include "common/engine/model_executor.h"
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
#include "kernels/choose_backend.h"
#include "kv_transfer/in_process_transport.h"
#include "prefill_worker/prefill_metrics_feed.h"
#include "prefill_worker/prefill_worker.h"
#include "router/core/router_app.h"

ABSL_FLAG(std::string, name, "standalone", "name of this process in logs and metrics");
ABSL_FLAG(std::string, model, "", "a GGUF file or a Hugging Face folder");
ABSL_FLAG(std::string, http, "127.0.0.1:8000", "host:port of the API; port 0 takes a free one");
ABSL_FLAG(std::string, served_model_name, "", "what clients call the model; empty: its own name");
ABSL_FLAG(std::string, backend, "auto",
          "what computes: cpu, cuda, or auto, which takes CUDA where a device answers");
ABSL_FLAG(int, tensor_parallel, 1,
          "ranks that share the model, each with its own GPU, or its own --threads");
ABSL_FLAG(std::vector<std::string>, device, {"0"},
          "CUDA's numbers of the ranks' GPUs, as 0,1; one number stands for it and the next ones");
ABSL_FLAG(double, gpu_memory_share, 0.9,
          "share of the GPU's memory to take, half of it for each of prefill and decode");
ABSL_FLAG(int, threads, 1, "CPU threads of each rank that compute, for each of prefill and decode");
ABSL_FLAG(std::vector<std::string>, cores, {},
          "cores to pin the compute threads to, as 0,1; empty pins none");
ABSL_FLAG(int64_t, kv_bytes, 0,
          "memory for KV blocks of all ranks, for each of prefill and decode; 0 chooses by the "
          "model's context, "
          "or all of the GPUs' share");
ABSL_FLAG(int, block_tokens, 0, "tokens in a KV block; 0: what suits the backend");
ABSL_FLAG(double, drain_s, 10, "how long a stopping process finishes what it has accepted");
ABSL_FLAG(std::string, ready_file, "", "written once the process listens");

namespace longhaul {
namespace {

constexpr char kPrefillAddress[] = "in-process";

// A model on its own backend, and its executor: what each of the two workers computes with.
struct Stack {
  static absl::StatusOr<std::unique_ptr<Stack>> Make(bool prefill) {
    BackendChoice choice;
    choice.backend = absl::GetFlag(FLAGS_backend);
    choice.tensor_parallel = absl::GetFlag(FLAGS_tensor_parallel);
    LH_ASSIGN_OR_RETURN(choice.devices, ParseNumbers("--device", absl::GetFlag(FLAGS_device)));
    choice.cuda.memory_share = absl::GetFlag(FLAGS_gpu_memory_share) / 2;
    CpuBackendOptions& options = choice.cpu;
    options.threads = absl::GetFlag(FLAGS_threads);
    options.pack_prefill_at_load = prefill;
    LH_ASSIGN_OR_RETURN(options.cores, ParseNumbers("--cores", absl::GetFlag(FLAGS_cores)));
    auto stack = std::make_unique<Stack>();
    LH_ASSIGN_OR_RETURN(stack->backends, ChooseBackend(choice));
    LH_ASSIGN_OR_RETURN(
        stack->model,
        WorkerModel::Load(stack->backends, {.path = absl::GetFlag(FLAGS_model),
                                            .block_tokens = absl::GetFlag(FLAGS_block_tokens),
                                            .kv_bytes = absl::GetFlag(FLAGS_kv_bytes),
                                            .head = !prefill}));
    return stack;
  }

  // On `loop`.
  void Begin(ThreadLoop& loop, ThreadLoop& transfer_loop, Transport* transport) {
    engine = std::make_unique<TransferEngine>(&loop, &transfer_loop, transport, &kv_memory());
    executor = std::make_unique<ModelExecutor>(loop, model->ranks(), spin_us());
  }

  KvMemory& kv_memory() const { return backends[0].backend->kv_memory(); }
  int64_t spin_us() const { return backends[0].backend->host_visible() ? 0 : kDeviceLoopSpinUs; }

  WorkerMetricsFeedOptions MetricsOptions(const Transport& transport) const {
    return {transport.name(), model->pool().layout.block_bytes()};
  }

  std::vector<BackendRank> backends;
  std::unique_ptr<WorkerModel> model;
  std::unique_ptr<TransferEngine> engine;
  std::unique_ptr<ModelExecutor> executor;
};

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

absl::Status Serve(RouterOptions router_options, Stack& prefill_stack, Stack& decode_stack) {
  const auto network = MakeInProcessNetwork();
  ThreadLoop transfer_loop({.name = "transfer"});
  InProcessTransport prefill_transport(&transfer_loop, network, &prefill_stack.kv_memory());
  InProcessTransport decode_transport(&transfer_loop, network, &decode_stack.kv_memory());
  ThreadLoop loop({.name = "workers", .spin_us = decode_stack.spin_us()});
  const PrefillWorkerOptions prefill_options = PrefillOptions(*prefill_stack.model);
  DecodeWorkerOptions decode_options = DecodeOptions(*decode_stack.model);
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
    prefill =
        std::make_unique<PrefillWorker>(prefill_options, &loop, prefill_stack.executor.get(),
                                        prefill_stack.engine.get(), prefill_stack.model->pool());
    prefill_client = std::make_unique<DirectPrefillClient>(
        &loop, std::map<std::string, DirectPrefillClient::Worker>{
                   {kPrefillAddress, {&loop, prefill.get()}}});
    decode = std::make_unique<DecodeWorker>(decode_options, &loop, decode_stack.executor.get(),
                                            decode_stack.engine.get(), prefill_client.get(),
                                            decode_stack.model->pool());
    prefill_feed = std::make_unique<PrefillMetricsFeed>(
        &loop, prefill.get(), WorkerMetrics(*registry, "prefill", prefill_options.name),
        prefill_stack.MetricsOptions(prefill_transport));
    decode_feed = std::make_unique<DecodeMetricsFeed>(
        &loop, decode.get(), WorkerMetrics(*registry, "decode", decode_options.name),
        decode_stack.MetricsOptions(decode_transport));
  });

  const ModelFile& file = prefill_stack.model->file();
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
    for (Stack* stack : {&decode_stack, &prefill_stack}) {
      stack->executor.reset();
      stack->engine.reset();
    }
  });
  transfer_loop.Stop();
  loop.Stop();
  return status;
}

absl::Status Main() {
  BlockStopSignals();
  InitLog(absl::GetFlag(FLAGS_name), LogLevel::kInfo);
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<Stack> prefill_stack, Stack::Make(/*prefill=*/true));
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<Stack> decode_stack, Stack::Make(/*prefill=*/false));
  LH_ASSIGN_OR_RETURN(RouterOptions options,
                      RouterOptionsFromFlags(prefill_stack->model->file().config));
  return Serve(std::move(options), *prefill_stack, *decode_stack);
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Router, prefill worker and decode worker in one process.");
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = longhaul::Main();
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
