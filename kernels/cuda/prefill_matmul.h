// Matrix products of prefill rows, by cuBLASLt: out [rows, n] = x [rows, k] W [n, k]^T (+ bias),
// bf16 operands, float32 sums. Device thread.
//
// A row's bits must not depend on how many rows are beside it, nor on which process computes it. So
// each shape has one algorithm that defines its sums: cuBLAS's first choice for many rows that does
// not split them over processors. Which is fastest depends on the number of rows; another one is
// used for a class of them only if it gave the very same bits on random rows.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

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

  // Queues the product. `weight`, `x`, `out` and `bias` (null without) are 16-byte aligned. A
  // shape's first product takes some tenths of a second more: algorithms are tried.
  void Run(const Shape& shape, const void* weight, const void* x, int64_t rows, const void* bias,
           void* out);

 private:
  // Algorithms are chosen for these numbers of rows, and serve those up to them; the last one
  // beyond, too.
  static constexpr std::array<int64_t, 6> kRowClasses = {128, 256, 512, 1024, 2048, 4096};
  using Algorithms = std::array<cublasLtMatmulAlgo_t, kRowClasses.size()>;
  struct Product;

  PrefillMatmul(CudaDevice& device, std::unique_ptr<DeviceBuffer> workspace);
  const Algorithms& AlgorithmsFor(const Product& product);
  std::vector<cublasLtMatmulAlgo_t> Candidates(const Product& product);
  void Tune(const Product& product, Algorithms& algorithms);
  float Milliseconds(const Product& product, const cublasLtMatmulAlgo_t& algorithm);
  cublasStatus_t Queue(const Product& product, const cublasLtMatmulAlgo_t& algorithm);

  CudaDevice& device_;
  const std::unique_ptr<DeviceBuffer> workspace_;
  cublasLtHandle_t handle_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::map<Shape, Algorithms> algorithms_;
};

}  // namespace longhaul
