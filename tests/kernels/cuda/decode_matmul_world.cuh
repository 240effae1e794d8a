// What the tests of the decode products share: arrays on the device, random values, float64.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/decode_matmul.h"
#include "tests/kernels/cuda/hashed_bf16.cuh"

namespace longhaul {

inline constexpr uint64_t kSeed = 20261124;

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t count) : count_(count) {
    CudaCheck(cudaMalloc(&data_, count * sizeof(T)), "cudaMalloc");
  }
  ~DeviceArray() { CudaCheck(cudaFree(data_), "cudaFree"); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() const { return data_; }
  int64_t count() const { return count_; }
  void FillBytes(int byte) { CudaCheck(cudaMemset(data_, byte, count_ * sizeof(T)), "cudaMemset"); }
  std::vector<T> Host(int64_t count) const {
    std::vector<T> host(count);
    CudaCheck(cudaMemcpy(host.data(), data_, count * sizeof(T), cudaMemcpyDefault), "cudaMemcpy");
    return host;
  }
  void Set(const std::vector<T>& host) {
    CudaCheck(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyDefault),
              "cudaMemcpy");
  }

 private:
  T* data_ = nullptr;
  int64_t count_;
};

inline void Fill(DeviceArray<__nv_bfloat16>& array, uint64_t seed) {
  FillHashed<<<1024, 256>>>(array.data(), array.count(), seed);
  CudaCheckLaunch("FillHashed");
}

// reference [rows, samples] in float64 for the sampled rows of the weight; one thread an element.
inline __global__ void Reference(const __nv_bfloat16* weight, const __nv_bfloat16* x, int64_t k,
                                 const int32_t* samples, int sample_count, int64_t rows,
                                 double* reference) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= rows * sample_count) return;
  const __nv_bfloat16* w = weight + samples[i % sample_count] * k;
  const __nv_bfloat16* v = x + i / sample_count * k;
  double sum = 0;
  for (int64_t j = 0; j < k; ++j) sum += double{__bfloat162float(w[j])} * __bfloat162float(v[j]);
  reference[i] = sum;
}

// What the launches of a test need beside their operands.
class Workspace {
 public:
  Workspace(int multiprocessors, int64_t n)
      : partials_(DecodeMatmulPartialBytes(multiprocessors) / sizeof(float)),
        squares_(DecodeMatmulSquareBytes(n) / sizeof(float)),
        counters_(DecodeMatmulCounterBytes(n) / sizeof(uint32_t)) {
    partials_.FillBytes(0xFF);
    squares_.FillBytes(0xFF);
    counters_.FillBytes(0);
  }
  DecodeMatmulWorkspace get() const {
    return {partials_.data(), squares_.data(), counters_.data()};
  }

 private:
  DeviceArray<float> partials_, squares_;
  DeviceArray<uint32_t> counters_;
};

inline bool SameBits(const float* a, const float* b, int64_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}

}  // namespace longhaul
