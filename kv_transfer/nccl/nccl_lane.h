// Lanes over NCCL: a communicator of two, its receiving end rank 0, with a thread and a stream of
// its own. For KV between the GPUs of two processes, over NVLink within a host; what tags and
// cancellation need is LaneTransport's. NCCL takes no two ranks on one GPU, so a lane from the GPU
// that offers it is FailedPrecondition.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/model/kv_memory.h"
#include "kv_transfer/lane/lane.h"

namespace longhaul {

struct NcclOptions {
  KvMemory* memory = nullptr;  // a CUDA device's, where the pieces lie; outlives the maker
  // Blocks of the GPU that a lane may occupy while it moves bytes: each is taken from what
  // computes.
  int blocks_max = 8;
};

// Errors: InvalidArgument for memory that is not a GPU's, Unavailable where Longhaul was built
// without NCCL or NCCL does not start.
absl::StatusOr<std::unique_ptr<LaneMaker>> MakeNcclLanes(const NcclOptions& options);

}  // namespace longhaul
