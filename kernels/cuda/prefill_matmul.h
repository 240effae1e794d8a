// Matrix products of prefill rows, by cuBLASLt: out [rows, n] = x [rows, k] W [n, k]^T (+ bias),
// bf16 operands, float32 sums. Device thread.
//
// A row's bits must not depend on how many rows are beside it, nor on which process computes it. So
// each shape has one algorithm for all numbers of rows: cuBLAS's first choice for many that does
// not split sums over processors.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_device.h"

namespace longhaul {

class PrefillMatmul {
 public:
  static absl::StatusOr<std::unique_ptr<PrefillMatmul>> Make(CudaDevice& device);
  ~PrefillMatmul();
  PrefillMatmul(const PrefillMatmul&) = delete;
  PrefillMatmul& operator=(const PrefillMatmul&) = delete;

  struct Shape {
    int64_t n = 0;
    int64_t k = 0;
    bool bias = false;        // a bf16 [n] is added
    bool accumulate = false;  // out is float32 and added to; else it is bf16
    auto operator<=>(const Shape&) const = default;
  };

  // Queues the product. `weight`, `x`, `out` and `bias` (null without) are 16-byte aligned.
  void Run(const Shape& shape, const void* weight, const void* x, int64_t rows, const void* bias,
           void* out);

 private:
  PrefillMatmul(CudaDevice& device, std::unique_ptr<DeviceBuffer> workspace);
  const cublasLtMatmulAlgo_t& AlgorithmFor(const Shape& shape);

  CudaDevice& device_;
  const std::unique_ptr<DeviceBuffer> workspace_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Shape, cublasLtMatmulAlgo_t> algorithms_;
};

}  // namespace longhaul
