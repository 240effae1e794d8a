// What a CUDA call says, as the house's errors: running out of memory and a missing device are of
// the world and become a Status where they can happen; any other failure (a broken launch, a fault
// in a kernel) leaves the device in a state that nothing can be trusted in, and ends the process.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace longhaul {

// Ends the process unless `result` is success. `what` names the call for the log. Any thread.
void CudaCheck(cudaError_t result, absl::string_view what);

// The same after a kernel launch, whose errors only cudaGetLastError tells.
void CudaCheckLaunch(absl::string_view kernel);

// OK, ResourceExhausted for memory, Unavailable for a device or driver that is missing or too old,
// else Internal; the message holds CUDA's own words. Clears the error.
absl::Status CudaStatus(cudaError_t result, absl::string_view what);

}  // namespace longhaul
