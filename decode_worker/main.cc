// longhaul_decode: generates tokens from KV caches that prefill workers computed.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/engine/worker_model.h"
#include "common/process/flags.h"
#include "common/runtime/run_and_wait.h"
#include "decode_worker/decode_metrics_feed.h"
#include "decode_worker/decode_service.h"
#include "decode_worker/decode_worker.h"
#include "decode_worker/grpc_prefill_client.h"
#include "deploy/worker/worker_process.h"

ABSL_FLAG(std::string, name, "decode-0", "name of this worker in logs, headers and metrics");
ABSL_FLAG(int64_t, batch_sequences_max, 64, "requests generated at once");
ABSL_FLAG(int64_t, local_prefill_tokens_max, 32,
          "a prompt's remainder up to this long is computed here");
ABSL_FLAG(double, step_target_ms, 0,
          "what a step should take that computes a prompt beside running requests: their time per "
          "token while prompts come; 0: what suits the backend");
ABSL_FLAG(bool, local_fallback, true,
          "compute a prompt here when no prefill worker can; false refuses it");
ABSL_FLAG(int64_t, chunk_tokens, 0,
          "tokens of the transfer unit, a multiple of --block_tokens; 0: what suits the backend");
ABSL_FLAG(int, window_chunks, 4, "transfer units granted ahead of what has arrived");
ABSL_FLAG(int64_t, heartbeat_ms, 2000,
          "how often a prefill worker and this one say that they live; five times without a word "
          "end an attempt");

namespace longhaul {
namespace {

// A message costs some 10 us on a GPU, whatever its size: there a layer of the unit is 8 MiB of an
// 8B model's KV.
constexpr int64_t kDeviceChunkTokens = 2048;

int64_t ChunkTokens(const ModelStack& stack) {
  const int64_t flag = absl::GetFlag(FLAGS_chunk_tokens);
  if (flag != 0) return flag;
  return stack.host_visible() ? HandOffOptions().chunk_tokens : kDeviceChunkTokens;
}

constexpr double kDeviceStepTargetUs = 20'000;

double StepTargetUs(const ModelStack& stack) {
  const double flag = absl::GetFlag(FLAGS_step_target_ms);
  if (flag != 0) return flag * 1000;
  return stack.host_visible() ? DecodeSchedulerOptions().step_target_us : kDeviceStepTargetUs;
}

DecodeWorkerOptions Options(WorkerProcess& process) {
  const WorkerModel& model = process.model();
  DecodeWorkerOptions options;
  options.name = process.name();
  options.model = model.file().config.name;
  options.transport = process.transport().name();
  options.incarnation = RandomId();
  options.fingerprint = process.fingerprint();
  options.vocab = model.file().config.vocab;
  options.eos_tokens = model.file().config.eos_tokens;
  options.local_prefill_tokens_max = absl::GetFlag(FLAGS_local_prefill_tokens_max);
  options.local_fallback = absl::GetFlag(FLAGS_local_fallback);
  options.scheduler.context_tokens_max = model.file().config.context_tokens_max;
  options.scheduler.batch_sequences_max = absl::GetFlag(FLAGS_batch_sequences_max);
  options.scheduler.step_target_us = StepTargetUs(process.stack());
  options.hand_off.chunk_tokens = ChunkTokens(process.stack());
  options.hand_off.window_chunks = absl::GetFlag(FLAGS_window_chunks);
  options.hand_off.heartbeat_us = absl::GetFlag(FLAGS_heartbeat_ms) * 1000;
  return options;
}

absl::Status Work(WorkerProcess& process) {
  ThreadLoop& loop = *process.loop();
  ModelStack& stack = process.stack();
  std::unique_ptr<PrefillClient> prefill_client;
  std::unique_ptr<DecodeWorker> worker;
  std::unique_ptr<DecodeMetricsFeed> feed;
  RunAndWait(loop, [&] {
    prefill_client = MakeGrpcPrefillClient(process.loop());
    worker =
        std::make_unique<DecodeWorker>(Options(process), &loop, stack.executor(), stack.engine(),
                                       prefill_client.get(), process.model().pool());
    feed = std::make_unique<DecodeMetricsFeed>(&loop, worker.get(), process.metrics(),
                                               process.FeedOptions());
  });
  const absl::Status served =
      process.Serve(StartDecodeService(WorkerProcess::ListenAddress(), &loop, worker.get()),
                    [&] { worker->Drain(); });
  RunAndWait(loop, [&] {
    feed.reset();
    worker.reset();
    prefill_client.reset();
  });
  return served;
}

absl::Status Main() {
  if (absl::GetFlag(FLAGS_heartbeat_ms) < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--heartbeat_ms=", absl::GetFlag(FLAGS_heartbeat_ms), "; use 1 or more"));
  }
  if (!(absl::GetFlag(FLAGS_step_target_ms) >= 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--step_target_ms=", absl::GetFlag(FLAGS_step_target_ms), "; use 0 or more"));
  }
  return WorkerProcess::Run(WorkerRole::kDecode, absl::GetFlag(FLAGS_name), Work);
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  longhaul::ParseCommandLine(argc, argv,
                             "Generates tokens from KV caches that prefill workers computed.");
  const absl::Status status = longhaul::Main();
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
