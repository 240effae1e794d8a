#include "deploy/worker/model_flags.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "common/base/status.h"
#include "common/process/flags.h"

ABSL_FLAG(std::string, model, "", "a GGUF file or a Hugging Face folder");
ABSL_FLAG(std::string, backend, "auto",
          "what computes: cpu, cuda, or auto, which takes CUDA where a device answers");
ABSL_FLAG(int, tensor_parallel, 1,
          "ranks that share the model, each with its own GPU, or its own --threads");
ABSL_FLAG(std::vector<std::string>, device, {"0"},
          "CUDA's numbers of the ranks' GPUs, as 0,1; one number stands for it and the next ones");
ABSL_FLAG(double, gpu_memory_share, 0.9, "share of each GPU's memory that this process may take");
ABSL_FLAG(int, threads, 1, "CPU threads of each rank that compute, for each worker");
ABSL_FLAG(std::vector<std::string>, cores, {},
          "cores to pin the compute threads to, as 0,1; empty pins none");
ABSL_FLAG(int64_t, kv_bytes, 0,
          "memory for KV blocks, of all ranks of each worker; 0 chooses by the model's context, or "
          "all of the GPUs' share");
ABSL_FLAG(int, block_tokens, 0,
          "tokens in a KV block, the same on all workers; 0: what suits the backend");

namespace longhaul {

absl::StatusOr<BackendChoice> BackendChoiceFromFlags(WorkerRole role) {
  BackendChoice choice;
  choice.backend = absl::GetFlag(FLAGS_backend);
  choice.tensor_parallel = absl::GetFlag(FLAGS_tensor_parallel);
  LH_ASSIGN_OR_RETURN(choice.devices, ParseNumbers("--device", absl::GetFlag(FLAGS_device)));
  choice.cuda.memory_share = absl::GetFlag(FLAGS_gpu_memory_share);
  choice.cpu.threads = absl::GetFlag(FLAGS_threads);
  choice.cpu.pack_prefill_at_load = role == WorkerRole::kPrefill;
  LH_ASSIGN_OR_RETURN(choice.cpu.cores, ParseNumbers("--cores", absl::GetFlag(FLAGS_cores)));
  return choice;
}

WorkerModelOptions WorkerModelOptionsFromFlags(WorkerRole role) {
  return {.path = absl::GetFlag(FLAGS_model),
          .block_tokens = absl::GetFlag(FLAGS_block_tokens),
          .kv_bytes = absl::GetFlag(FLAGS_kv_bytes),
          .head = role == WorkerRole::kDecode};
}

}  // namespace longhaul
