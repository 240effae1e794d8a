// Matrix products of prefill rows, by cuBLASLt: out [rows, n] = x [rows, k] W [n, k]^T (+ bias),
// bf16 operands, float32 sums. Device thread.
//
// A row's bits must not depend on how many rows are beside it, nor on which process computes it. So
// sums are never split over processors, and each shape has one algorithm that all others are held
// to: cuBLAS's first choice for many rows. Fewer rows fill the device better with smaller tiles; an
// algorithm for them is taken only when its bits were seen to be the same.
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

  // Chooses the algorithms for products with this shape by trying them on `weight` [n, k] itself.
  // Once for each shape, while the model is loaded: it waits for the device, and takes memory for
  // the while; where there is none, one algorithm serves all numbers of rows.
  void Tune(const Shape& shape, const void* weight, const void* bias);

  // Queues the product of a tuned shape. `weight`, `x`, `out` and `bias` (null without) are 16-byte
  // aligned.
  void Run(const Shape& shape, const void* weight, const void* x, int64_t rows, const void* bias,
           void* out);

 private:
  PrefillMatmul(CudaDevice& device, std::unique_ptr<DeviceBuffer> workspace);
  // By the number of rows: algorithms[i] for up to kRowClasses[i], the last one beyond.
  static constexpr std::array<int64_t, 5> kRowClasses = {64, 128, 256, 512, 1024};
  using Algorithms = std::array<cublasLtMatmulAlgo_t, kRowClasses.size() + 1>;
  struct Operands {
    const void* weight = nullptr;
    const void* x = nullptr;
    const void* bias = nullptr;
    void* out = nullptr;
  };

  // Algorithms that cuBLAS expects to be fast for this number of rows, the fastest first, without
  // those that split sums.
  std::vector<cublasLtMatmulAlgo_t> Candidates(const Shape& shape, int64_t rows);
  void Queue(const Shape& shape, const Operands& operands, int64_t rows,
             const cublasLtMatmulAlgo_t& algorithm);
  // The fastest of the candidates for `rows` whose results have the bits of `standard`'s.
  cublasLtMatmulAlgo_t FastestEqual(const Shape& shape, const Operands& operands, int64_t rows,
                                    const cublasLtMatmulAlgo_t& standard);
  // Digests of the product; of a shape that accumulates, of the product added to itself.
  std::vector<uint64_t> Digests(const Shape& shape, const Operands& operands, int64_t rows,
                                const cublasLtMatmulAlgo_t& algorithm);
  double Milliseconds(const Shape& shape, const Operands& operands, int64_t rows,
                      const cublasLtMatmulAlgo_t& algorithm);

  CudaDevice& device_;
  const std::unique_ptr<DeviceBuffer> workspace_;
  cublasLtHandle_t handle_ = nullptr;
  CudaPinnedBuffer digested_;  // slabs, then their digests
  std::map<Shape, Algorithms> algorithms_;
};

}  // namespace longhaul
