// Copies of many runs of device memory in one launch: a copy by the driver costs some microseconds
// of the host for each run, which is more than the device needs for a megabyte.
#pragma once

#include <cuda_runtime_api.h>

#include "common/model/kv_memory.h"

namespace longhaul {

inline constexpr int kRunCopyRunsMax = 32768;  // of a launch

// Copies runs[i], i in [0, count), the longest of which has `bytes_max`. Runs may overlap as little
// as memcpy's; those whose ends and sizes are multiples of 16 move at memory speed. The array may
// be pinned host memory. Any thread.
void LaunchRunCopy(const KvMemory::Run* runs, int count, int64_t bytes_max, cudaStream_t stream);

}  // namespace longhaul
