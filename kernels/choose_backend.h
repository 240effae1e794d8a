// Which backend a process computes with, from its flags: the one place where the mains' --backend,
// --device and --gpu_memory_share come together.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/model/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"

namespace longhaul {

struct BackendChoice {
  std::string backend = "auto";  // auto, cpu or cuda; auto takes CUDA where a device answers
  CpuBackendOptions cpu;
  CudaBackendOptions cuda;
  // Asks why the process's KV transport cannot carry device memory, OK when it can: else auto takes
  // the CPU, and cuda is this error. Called only where CUDA would be taken.
  absl::Status (*carries_device_memory)() = [] { return absl::OkStatus(); };
};

// Logs what was chosen and why. Errors: InvalidArgument for a choice that there is not, those of
// the makers.
absl::StatusOr<std::unique_ptr<Backend>> ChooseBackend(const BackendChoice& choice);

}  // namespace longhaul
