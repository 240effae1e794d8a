// Device: the door to a processor's memory and its queue of work. Backend (backend.h) adds the
// model's operations. One device thread calls it, unless a method says otherwise.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/model/device_buffer.h"
#include "common/model/kv_memory.h"

namespace longhaul {

// A point in the device's queue of work.
using DeviceEvent = uint64_t;

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;   // "cpu: AMD EPYC, avx512-bf16, 2 threads"
  virtual bool host_visible() const = 0;  // device addresses can be read and written by the host
  virtual int64_t capacity_bytes() const = 0;  // memory that Allocate could still give

  // Error: ResourceExhausted with the bytes asked for and left.
  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) = 0;

  // Copies in queue order, in either direction between host and device or within the device.
  virtual void Copy(void* to, const void* from, int64_t bytes) = 0;

  // Marks the end of the work queued so far; done once that work is.
  virtual DeviceEvent Record() = 0;
  virtual bool IsDone(DeviceEvent event) = 0;  // any thread
  virtual void Wait(DeviceEvent event) = 0;    // any thread; blocks the caller

  // This device's memory as the transfer thread sees it. Any thread may ask.
  virtual KvMemory& kv_memory() = 0;
};

}  // namespace longhaul
