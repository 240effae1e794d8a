// Values in a test's device memory.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "kernels/cuda/cuda_device.h"

namespace longhaul {

template <typename T>
class OnDevice {
 public:
  // `count` values, each byte 0xff: a NaN where it is not written.
  OnDevice(CudaDevice& device, int64_t count)
      : OnDevice(device, std::vector<T>(count), /*poisoned=*/true) {}
  OnDevice(CudaDevice& device, std::vector<T> values)
      : OnDevice(device, std::move(values), false) {}

  T* data() const { return reinterpret_cast<T*>(buffer_->data()); }
  // After all queued work.
  std::vector<T> Down() const {
    std::vector<T> values(buffer_->bytes() / sizeof(T));
    device_.Copy(values.data(), buffer_->data(), buffer_->bytes());
    device_.Wait(device_.Record());
    return values;
  }

 private:
  OnDevice(CudaDevice& device, std::vector<T> values, bool poisoned)
      : device_(device), buffer_(device.Allocate(values.size() * sizeof(T)).value()) {
    if (poisoned) std::memset(static_cast<void*>(values.data()), 0xff, values.size() * sizeof(T));
    device_.Copy(buffer_->data(), values.data(), buffer_->bytes());
  }

  CudaDevice& device_;
  std::unique_ptr<DeviceBuffer> buffer_;
};

}  // namespace longhaul
