// Which backend a process computes with, and on how many ranks, from its flags: the one place where
// the mains' --backend, --device, --gpu_memory_share and --tensor_parallel come together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/backend_rank.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"

namespace longhaul {

struct BackendChoice {
  std::string backend = "auto";  // auto, cpu or cuda; auto takes CUDA where a device answers
  int tensor_parallel = 1;       // ranks that share the model
  CpuBackendOptions cpu;         // of each rank; cores are dealt out to the ranks in turn
  CudaBackendOptions cuda;       // of each rank
  // CUDA's numbers of the ranks' GPUs. One number stands for it and those that follow.
  std::vector<int> devices = {0};
  // Asks why the process's KV transport cannot carry device memory, OK when it can: else auto takes
  // the CPU, and cuda is this error. Called only where CUDA would be taken.
  absl::Status (*carries_device_memory)() = [] { return absl::OkStatus(); };
};

// The choice's GPUs, one for each rank. Error: InvalidArgument for another number of them, with
// `flag`, which named them.
absl::StatusOr<std::vector<int>> DevicesOf(const BackendChoice& choice, const std::string& flag);

// In order of rank. Logs what was chosen and why. Errors: InvalidArgument for a choice that there
// is not, those of the makers.
absl::StatusOr<std::vector<BackendRank>> ChooseBackend(BackendChoice choice);

}  // namespace longhaul
