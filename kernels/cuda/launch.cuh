// Kernel launches that may overlap the kernel before them (programmatic dependent launch): the
// launched kernel must call ptx::WaitForEarlierKernels before it reads or writes what any earlier
// kernel may still touch.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <mutex>

#include "kernels/cuda/cuda_check.h"

namespace longhaul {

// What is set for a kernel, such as the shared memory that it may have, is set on one device: this
// does it once on each that a calling thread has made its own.
class OncePerDevice {
 public:
  template <typename Body>
  void Run(Body body) {
    int device = 0;
    CudaCheck(cudaGetDevice(&device), "cudaGetDevice");
    std::call_once(done_.at(device), body);
  }

 private:
  std::array<std::once_flag, 64> done_;
};

template <typename... Parameters, typename... Arguments>
void LaunchOverlapping(cudaStream_t stream, dim3 grid, dim3 block, size_t shared_bytes,
                       absl::string_view name, void (*kernel)(Parameters...),
                       Arguments... arguments) {
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  CudaCheck(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), name);
}

}  // namespace longhaul
