#include "kernels/cuda/cuda_check.h"

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace longhaul {
namespace {

std::string Words(cudaError_t result, absl::string_view what) {
  return absl::StrCat(what, ": ", cudaGetErrorName(result), ", ", cudaGetErrorString(result));
}

}  // namespace

void CudaCheck(cudaError_t result, absl::string_view what) {
  if (result != cudaSuccess) LH_CHECK(false, Words(result, what));
}

void CudaCheckLaunch(absl::string_view kernel) { CudaCheck(cudaGetLastError(), kernel); }

absl::Status CudaStatus(cudaError_t result, absl::string_view what) {
  if (result == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();
  switch (result) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(Words(result, what));
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
      return absl::UnavailableError(Words(result, what));
    default:
      return absl::InternalError(Words(result, what));
  }
}

}  // namespace longhaul
