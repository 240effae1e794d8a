// longhaul_prefill: computes KV caches and streams them to decode workers.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "common/base/random.h"
#include "common/engine/worker_model.h"
#include "common/process/flags.h"
#include "common/runtime/run_and_wait.h"
#include "deploy/worker/worker_process.h"
#include "prefill_worker/prefill_metrics_feed.h"
#include "prefill_worker/prefill_service.h"
#include "prefill_worker/prefill_worker.h"

ABSL_FLAG(std::string, name, "prefill-0", "name of this worker in logs, headers and metrics");
ABSL_FLAG(double, chunk_target_ms, 100,
          "what a prefill chunk should take: how long a short prompt waits for a long one");
ABSL_FLAG(int64_t, chunk_tokens_max, 1024, "most tokens in a prefill chunk");

namespace longhaul {
namespace {

PrefillWorkerOptions Options(WorkerProcess& process) {
  const WorkerModel& model = process.model();
  PrefillWorkerOptions options;
  options.name = process.name();
  options.model = model.file().config.name;
  options.incarnation = RandomId();
  options.fingerprint = process.fingerprint();
  options.context_tokens_max = model.file().config.context_tokens_max;
  options.scheduler.chunk_target_us = absl::GetFlag(FLAGS_chunk_target_ms) * 1000;
  options.scheduler.chunk_tokens_max = absl::GetFlag(FLAGS_chunk_tokens_max);
  options.scheduler.block_tokens = model.pool().layout.block_tokens;
  return options;
}

absl::Status Work(WorkerProcess& process) {
  ThreadLoop& loop = *process.loop();
  ModelStack& stack = process.stack();
  std::unique_ptr<PrefillWorker> worker;
  std::unique_ptr<PrefillMetricsFeed> feed;
  RunAndWait(loop, [&] {
    worker = std::make_unique<PrefillWorker>(Options(process), &loop, stack.executor(),
                                             stack.engine(), process.model().pool());
    feed = std::make_unique<PrefillMetricsFeed>(&loop, worker.get(), process.metrics(),
                                                process.FeedOptions());
  });
  const absl::Status served =
      process.Serve(StartPrefillService(WorkerProcess::ListenAddress(), &loop, worker.get()),
                    [&] { worker->Drain(); });
  RunAndWait(loop, [&] {
    feed.reset();
    worker.reset();
  });
  return served;
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  longhaul::ParseCommandLine(argc, argv, "Computes KV caches and streams them to decode workers.");
  const absl::Status status = longhaul::WorkerProcess::Run(
      longhaul::WorkerRole::kPrefill, absl::GetFlag(FLAGS_name), longhaul::Work);
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
