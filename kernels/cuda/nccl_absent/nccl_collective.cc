// The build with CUDA but without NCCL.
#include "kernels/cuda/nccl_collective.h"

namespace longhaul {

absl::StatusOr<std::vector<std::unique_ptr<Collective>>> MakeNcclCollectives(
    absl::Span<CudaDevice* const> devices) {
  return absl::UnavailableError(
      "this build has no NCCL, through which GPUs share a model: install libnccl-dev, configure "
      "and build again, or use --tensor_parallel=1");
}

}  // namespace longhaul
