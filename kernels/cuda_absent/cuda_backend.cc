// The build without CUDA.
#include "kernels/cuda/cuda_backend.h"

namespace longhaul {

absl::Status CudaDeviceAnswers(int device) {
  return absl::UnavailableError(
      "this build has no CUDA: install the CUDA 13 toolkit (nvcc), configure with LONGHAUL_CUDA=ON "
      "and build again, or use --backend=cpu");
}

int CudaDevices() { return 0; }

CudaReach CudaReachOf(int device, int other) { return CudaReach::kHost; }

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaBackendOptions& options) {
  return CudaDeviceAnswers(options.device);
}

absl::StatusOr<std::vector<BackendRank>> MakeCudaRanks(const CudaBackendOptions& options,
                                                       absl::Span<const int> devices) {
  return CudaDeviceAnswers(devices[0]);
}

}  // namespace longhaul
