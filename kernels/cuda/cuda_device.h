// A CUDA device as the door Device sees it: one stream, memory within a share, events. CudaBackend
// is made of it. Device thread only, unless a method says otherwise.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/device.h"

namespace longhaul {

class CudaDevice {
 public:
  // Errors: see CudaDeviceAnswers and MakeCudaBackend.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Open(int device, double memory_share);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  std::string name() const;
  int number() const { return device_; }  // CUDA's
  int multiprocessors() const { return multiprocessors_; }
  cudaStream_t stream() const { return stream_; }
  // Whether kernels whose blocks wait for each other must be launched cooperatively, which starts
  // all blocks at once or none: two that were not could keep each other's blocks out for ever. Only
  // the process's first user of a device may do without, and only if no MPS lets other processes'
  // kernels run beside its own.
  bool launches_cooperatively() const { return !is_first_ || has_mps_; }

  // Makes this device the calling thread's: before any other CUDA call of a thread.
  void Bind() const;

  // Lets this device's kernels and copies reach another's memory. Unavailable when there is no way
  // but the host's.
  absl::Status ReachMemoryOf(int other) const;

  int64_t capacity_bytes() const;
  // The buffers must not outlive the device. Zeroes nothing.
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes);
  // How many buffers were freed so far: what was recorded before may hold a dead address.
  uint64_t frees() const { return books_->frees; }

  // Host memory is best pinned (CudaPinnedBuffer); other is copied through the driver's own
  // staging, and the caller waits for that.
  void Copy(void* to, const void* from, int64_t bytes);

  DeviceEvent Record();
  bool IsDone(DeviceEvent event);  // any thread
  void Wait(DeviceEvent event);    // any thread

 private:
  struct Books {
    int64_t allocated_bytes = 0;
    uint64_t frees = 0;
  };
  class Buffer;

  CudaDevice(int device, int64_t bytes_max);
  void SetDone(DeviceEvent event);

  const int device_;
  const int64_t bytes_max_;
  const bool is_first_;
  bool has_mps_ = false;
  int multiprocessors_ = 0;
  std::string product_;
  cudaStream_t stream_ = nullptr;
  const std::unique_ptr<Books> books_ = std::make_unique<Books>();
  // Event n lies in events_[n % size]. It is recorded again only when it is done, so whoever asks
  // for an old event late hears of a later one at worst.
  std::vector<cudaEvent_t> events_;
  uint64_t recorded_ = 0;
  std::atomic<uint64_t> done_ = 0;  // the latest event known to be: all before it are, too
};

// Lets each device's kernels and copies reach the memory of all others. Errors: InvalidArgument for
// a device that is there twice; Unavailable when two of them have no way to each other.
absl::Status JoinDevices(absl::Span<CudaDevice* const> devices);

// Page-locked host memory, which the device reads and writes at full speed. Any thread.
class CudaPinnedBuffer {
 public:
  static absl::StatusOr<CudaPinnedBuffer> Allocate(int64_t bytes);
  CudaPinnedBuffer() = default;
  std::byte* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  int64_t bytes_ = 0;
};

}  // namespace longhaul
