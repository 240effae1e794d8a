// The CUDA maker of the door Backend, for Hopper (sm_90a). Where the build has no CUDA the same
// calls exist and answer Unavailable (kernels/cuda_absent; CMake chooses). Includes nothing of
// CUDA.
//
// Precision. Weights are bf16: rounded once at load, from whatever the file has. The residual
// stream, the logits, norms, rotations, softmax and all sums are float32; what passes between
// kernels (normed, qkv, attended and gated rows) and KV is bf16. Biases are rounded to
// bf16.
//
// Shapes: head_dim 64 or 128, KV blocks of a multiple of 16 tokens, widths that are multiples of 8.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/backend_rank.h"

namespace longhaul {

struct CudaBackendOptions {
  int device = 0;             // CUDA's number of it
  double memory_share = 0.9;  // of the device's memory, for everything this backend allocates
  int load_threads = 0;       // convert and copy weights while a model loads; 0: by the machine
};

// OK when the device is there and can run the kernels. Errors: Unavailable with the reason and the
// way out. Any thread.
absl::Status CudaDeviceAnswers(int device);

// The devices that this process sees; 0 where nothing answers. Any thread.
int CudaDevices();

// How a device reaches another's memory: over NVLink, over PCIe without the host, or by the host's
// memory only. Any thread.
enum class CudaReach { kHost, kPeer, kNvLink };
CudaReach CudaReachOf(int device, int other);

// Errors: those of CudaDeviceAnswers; InvalidArgument for the options; ResourceExhausted.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaBackendOptions& options);

// A rank on each of `devices`, in order, joined by NCCL, a single one, too; options.device is not
// looked at. Errors: those of MakeCudaBackend; InvalidArgument for a device named twice;
// Unavailable when the devices do not reach each other's memory, or the build has no NCCL.
absl::StatusOr<std::vector<BackendRank>> MakeCudaRanks(const CudaBackendOptions& options,
                                                       absl::Span<const int> devices);

}  // namespace longhaul
