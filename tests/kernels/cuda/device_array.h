// Arrays in device memory for tests and benchmarks: filled from the host, read back to it. Copies
// come after all work that is queued on the device, and before all that follows, whatever the
// stream. Every CUDA call is checked.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/cuda_check.h"

namespace longhaul {

// The number of CUDA devices; 0 where no driver answers.
inline int CudaDevices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

template <typename T>
class DeviceArray {
 public:
  // Every byte 0xFF: NaN as float and as bf16, so that what is never written shows.
  explicit DeviceArray(int64_t size) : size_(size) {
    CudaCheck(cudaMalloc(reinterpret_cast<void**>(&data_), size * sizeof(T)), "cudaMalloc");
    Poison();
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { Write(values); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void Poison() {
    CudaCheck(cudaMemset(data_, 0xFF, size_ * sizeof(T)), "cudaMemset");
    CudaCheck(cudaDeviceSynchronize(), "cudaMemset");
  }
  // `values`: at most size() of them, into the array's beginning.
  void Write(const std::vector<T>& values) {
    Copy(data_, values.data(), values.size() * sizeof(T));
  }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    Copy(values.data(), data_, size_ * sizeof(T));
    return values;
  }
  T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  static void Copy(void* to, const void* from, size_t bytes) {
    CudaCheck(cudaDeviceSynchronize(), "work before a copy");
    CudaCheck(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "cudaMemcpy");
    CudaCheck(cudaDeviceSynchronize(), "cudaMemcpy");
  }

  T* data_ = nullptr;
  int64_t size_;
};

}  // namespace longhaul
