// The flags of what a worker computes with and of its model, the same for every process that has a
// worker in it.
#pragma once

#include "absl/status/statusor.h"
#include "common/engine/worker_model.h"
#include "kernels/choose_backend.h"

namespace longhaul {

// What the process is made ready for.
enum class WorkerRole { kPrefill, kDecode };

// --backend, --tensor_parallel, --device, --gpu_memory_share, --threads, --cores. InvalidArgument
// for a value that is no number.
absl::StatusOr<BackendChoice> BackendChoiceFromFlags(WorkerRole role);

// --model, --block_tokens, --kv_bytes.
WorkerModelOptions WorkerModelOptionsFromFlags(WorkerRole role);

}  // namespace longhaul
