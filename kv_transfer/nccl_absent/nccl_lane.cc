#include "kv_transfer/nccl/nccl_lane.h"

namespace longhaul {

absl::StatusOr<std::unique_ptr<LaneMaker>> MakeNcclLanes(const NcclOptions& options) {
  return absl::UnavailableError(
      "this Longhaul was built without NCCL: install the CUDA toolkit with NCCL, configure again, "
      "or let KV go over UCX (--kv_transport=ucx)");
}

}  // namespace longhaul
