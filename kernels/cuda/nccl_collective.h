// The Collective of ranks on CUDA devices of one process: NCCL on the devices' own streams, so that
// what it queues is in order with the kernels and may be recorded with them. Where the build has no
// NCCL the same call exists and answers Unavailable (nccl_absent; CMake chooses).
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/collective.h"
#include "kernels/cuda/cuda_device.h"

namespace longhaul {

// NCCL adds up more ranks in an order that depends on where an element lies, which a row's bits
// must not. A sum of two has no order.
inline constexpr int kNcclRanksMax = 2;

// One for each device, in order of rank; of one device, too. A device outlives the work that is
// queued on it. Errors: InvalidArgument for more than kNcclRanksMax; Unavailable with NCCL's words.
absl::StatusOr<std::vector<std::unique_ptr<Collective>>> MakeNcclCollectives(
    absl::Span<CudaDevice* const> devices);

}  // namespace longhaul
