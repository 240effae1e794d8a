// longhaul_decode: generates tokens from KV caches that prefill workers computed.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "common/engine/model_executor.h"
#include "common/engine/worker_model.h"
#include "common/metrics/metric_registry.h"
#include "common/metrics/worker_metrics.h"
#include "common/process/flags.h"
#include "common/process/ready_file.h"
#include "common/process/stop_signal.h"
#include "common/process/version.h"
#include "common/process/worker_admin.h"
#include "common/runtime/run_and_wait.h"
#include "common/runtime/thread_loop.h"
#include "decode_worker/decode_metrics_feed.h"
#include "decode_worker/decode_service.h"
#include "decode_worker/decode_worker.h"
#include "decode_worker/grpc_prefill_client.h"
#include "kernels/choose_backend.h"
#include "kv_transfer/ucx/ucx_metrics_feed.h"
#include "kv_transfer/ucx/ucx_self_test.h"
#include "kv_transfer/ucx/ucx_transport.h"

ABSL_FLAG(std::string, name, "decode-0", "name of this worker in logs, headers and metrics");
ABSL_FLAG(std::string, model, "", "a GGUF file or a Hugging Face folder");
ABSL_FLAG(std::string, listen, "127.0.0.1:0",
          "host:port of the control plane; port 0 takes a free one");
ABSL_FLAG(std::string, http, "127.0.0.1:0",
          "host:port of /metrics, /livez, /readyz; port 0 takes a free one");
ABSL_FLAG(std::string, backend, "auto",
          "what computes: cpu, cuda, or auto, which takes CUDA where a device answers");
ABSL_FLAG(int, tensor_parallel, 1,
          "ranks that share the model, each with its own GPU, or its own --threads");
ABSL_FLAG(std::vector<std::string>, device, {"0"},
          "CUDA's numbers of the ranks' GPUs, as 0,1; one number stands for it and the next ones");
ABSL_FLAG(double, gpu_memory_share, 0.9, "share of each GPU's memory that this process may take");
ABSL_FLAG(int, threads, 1, "CPU threads of each rank that compute");
ABSL_FLAG(std::vector<std::string>, cores, {},
          "cores to pin the compute threads to, as 0,1; empty pins none");
ABSL_FLAG(int64_t, kv_bytes, 0,
          "memory for KV blocks, of all ranks; 0 chooses by the model's context, or all of the "
          "GPUs' share");
ABSL_FLAG(int, block_tokens, 0,
          "tokens in a KV block, the same on all workers; 0: what suits the backend");
ABSL_FLAG(int64_t, batch_sequences_max, 64, "requests generated at once");
ABSL_FLAG(int64_t, local_prefill_tokens_max, 32,
          "a prompt's remainder up to this long is computed here");
ABSL_FLAG(bool, local_fallback, true,
          "compute a prompt here when no prefill worker can; false refuses it");
ABSL_FLAG(int64_t, chunk_tokens, 0,
          "tokens of the transfer unit, a multiple of --block_tokens; 0: what suits the backend");
ABSL_FLAG(int, window_chunks, 4, "transfer units granted ahead of what has arrived");
ABSL_FLAG(int64_t, heartbeat_ms, 2000,
          "how often a prefill worker and this one say that they live; five times without a word "
          "end an attempt");
ABSL_FLAG(std::string, ucx_transports, longhaul::UcxOptions().transports,
          "what UCX may use, as in UCX_TLS");
ABSL_FLAG(int, self_test_fd, -1,
          "internal: be the second process of a self-test, told by this file");
ABSL_FLAG(double, drain_s, 10, "how long a stopping worker finishes what it has accepted");
ABSL_FLAG(std::string, ready_file, "", "written once the worker listens");

namespace longhaul {
namespace {

// A message costs some 10 us on a GPU, whatever its size: there a layer of the unit is 8 MiB of an
// 8B model's KV.
constexpr int64_t kDeviceChunkTokens = 2048;

int64_t ChunkTokens(const Backend& backend) {
  const int64_t flag = absl::GetFlag(FLAGS_chunk_tokens);
  if (flag != 0) return flag;
  return backend.host_visible() ? HandOffOptions().chunk_tokens : kDeviceChunkTokens;
}

absl::Status Main() {
  BlockStopSignals();
  const std::string name = absl::GetFlag(FLAGS_name);
  InitLog(name, LogLevel::kInfo);
  if (absl::GetFlag(FLAGS_heartbeat_ms) < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--heartbeat_ms=", absl::GetFlag(FLAGS_heartbeat_ms), "; use 1 or more"));
  }
  BackendChoice choice;
  choice.backend = absl::GetFlag(FLAGS_backend);
  choice.tensor_parallel = absl::GetFlag(FLAGS_tensor_parallel);
  LH_ASSIGN_OR_RETURN(choice.devices, ParseNumbers("--device", absl::GetFlag(FLAGS_device)));
  choice.cuda.memory_share = absl::GetFlag(FLAGS_gpu_memory_share);
  choice.carries_device_memory = UcxTransport::CarriesDeviceMemory;
  CpuBackendOptions& backend_options = choice.cpu;
  backend_options.threads = absl::GetFlag(FLAGS_threads);
  LH_ASSIGN_OR_RETURN(backend_options.cores, ParseNumbers("--cores", absl::GetFlag(FLAGS_cores)));
  LH_ASSIGN_OR_RETURN(const std::vector<BackendRank> ranks, ChooseBackend(choice));
  // Whose memory's kind and thread the transfers are of.
  Backend* const backend = ranks[0].backend.get();
  UcxOptions ucx_options;
  ucx_options.transports = absl::GetFlag(FLAGS_ucx_transports);
  ucx_options.memory = &backend->kv_memory();
  if (const int fd = absl::GetFlag(FLAGS_self_test_fd); fd >= 0) {
    return SendForUcxSelfTest(fd, ucx_options);
  }
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<UcxTransport> transport,
                      UcxTransport::Make(ucx_options));
  ThreadLoop transfer_loop({.name = "transfer", .spin_us = 50}, transport.get());
  // A slow or broken wire has been logged; the worker is still of use.
  const absl::StatusOr<LinkSpeed> speed = RunUcxSelfTest(
      &transfer_loop, transport.get(), &backend->kv_memory(),
      {"--backend=cuda", absl::StrCat("--device=", choice.devices[0]), "--gpu_memory_share=0.05"});
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<WorkerModel> model,
                      WorkerModel::Load(ranks, {.path = absl::GetFlag(FLAGS_model),
                                                .block_tokens = absl::GetFlag(FLAGS_block_tokens),
                                                .kv_bytes = absl::GetFlag(FLAGS_kv_bytes)}));
  MetricRegistry registry;
  WorkerMetrics metrics(registry, "decode", name);
  PublishBuildInfo(registry, "decode", name, kVersion, model->file().config.name);
  PublishUcxDrops(&transfer_loop, transport.get(), metrics);
  if (speed.ok()) {
    metrics.link_bandwidth_bytes_per_second.With({"self", transport->name()})
        .Set(speed->bytes_per_s);
  }

  DecodeWorkerOptions options;
  options.name = name;
  options.model = model->file().config.name;
  options.transport = transport->name();
  options.incarnation = RandomId();
  options.fingerprint = model->fingerprint();
  options.vocab = model->file().config.vocab;
  options.eos_tokens = model->file().config.eos_tokens;
  options.local_prefill_tokens_max = absl::GetFlag(FLAGS_local_prefill_tokens_max);
  options.local_fallback = absl::GetFlag(FLAGS_local_fallback);
  options.scheduler.context_tokens_max = model->file().config.context_tokens_max;
  options.scheduler.batch_sequences_max = absl::GetFlag(FLAGS_batch_sequences_max);
  options.hand_off.chunk_tokens = ChunkTokens(*backend);
  options.hand_off.window_chunks = absl::GetFlag(FLAGS_window_chunks);
  options.hand_off.heartbeat_us = absl::GetFlag(FLAGS_heartbeat_ms) * 1000;

  // gRPC's threads share it: their last call may end after the client has gone.
  const int64_t spin_us = backend->host_visible() ? 0 : kDeviceLoopSpinUs;
  const auto owned_loop =
      std::make_shared<ThreadLoop>(ThreadLoopOptions{.name = "loop", .spin_us = spin_us});
  ThreadLoop& loop = *owned_loop;
  std::unique_ptr<TransferEngine> engine;
  std::unique_ptr<ModelExecutor> executor;
  std::unique_ptr<PrefillClient> prefill_client;
  std::unique_ptr<DecodeWorker> worker;
  std::unique_ptr<DecodeMetricsFeed> feed;
  RunAndWait(loop, [&] {
    engine = std::make_unique<TransferEngine>(&loop, &transfer_loop, transport.get(),
                                              &backend->kv_memory());
    executor = std::make_unique<ModelExecutor>(loop, model->ranks(), spin_us);
    prefill_client = MakeGrpcPrefillClient(owned_loop);
    worker = std::make_unique<DecodeWorker>(options, &loop, executor.get(), engine.get(),
                                            prefill_client.get(), model->pool());
    feed = std::make_unique<DecodeMetricsFeed>(
        &loop, worker.get(), metrics,
        WorkerMetricsFeedOptions{transport->name(), model->pool().layout.block_bytes()});
  });
  const auto take_down = [&] {
    RunAndWait(loop, [&] {
      feed.reset();
      worker.reset();
      prefill_client.reset();
      executor.reset();
      engine.reset();
    });
    transfer_loop.Stop();
    loop.Stop();
  };

  absl::StatusOr<std::unique_ptr<DecodeService>> service =
      StartDecodeService(absl::GetFlag(FLAGS_listen), &loop, worker.get());
  if (!service.ok()) {
    take_down();
    return service.status();
  }
  {
    WorkerAdmin admin("decode", name, &registry);
    absl::Status served = admin.Start(absl::GetFlag(FLAGS_http));
    if (served.ok()) {
      served = WriteReadyFile(absl::GetFlag(FLAGS_ready_file),
                              {"decode", name, (*service)->address(), admin.address()});
    }
    if (served.ok()) {
      LogInfo("listening", {{"grpc", (*service)->address()}, {"http", admin.address()}});
      WaitForStopSignal();
      LogInfo("stopping", {{"drain_s", absl::GetFlag(FLAGS_drain_s)}});
      admin.SetDraining();
      RunAndWait(loop, [&] { worker->Drain(); });
      (*service)->Stop(static_cast<int64_t>(absl::GetFlag(FLAGS_drain_s) * 1e6));
    }
    service->reset();
    admin.Stop();
    take_down();
    return served;
  }
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Generates tokens from KV caches that prefill workers computed.");
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = longhaul::Main();
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
