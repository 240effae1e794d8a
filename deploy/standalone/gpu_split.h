// GpuSplit: how the prefill and the decode worker of one process have its GPUs: together, or each
// its own.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/choose_backend.h"

namespace longhaul {

struct GpuSplit {
  BackendChoice prefill;
  BackendChoice decode;
};

// `decode_devices`, of --decode_device: the decode worker's GPUs, one for it and those that follow
// as in BackendChoice; empty: the prefill worker's. Who shares one takes half of the memory's
// share. Naming them insists on CUDA. Errors: InvalidArgument, with the flags.
absl::StatusOr<GpuSplit> SplitGpus(BackendChoice prefill, BackendChoice decode,
                                   const std::vector<int>& decode_devices);

// Logs which prefill worker's GPU the decode worker's GPUs reach only through the host.
void WarnOfWaysThroughHost(const GpuSplit& split);

}  // namespace longhaul
