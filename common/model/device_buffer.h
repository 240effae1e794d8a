// DeviceBuffer: memory of a device, freed with the object.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longhaul {

class DeviceBuffer {
 public:
  virtual ~DeviceBuffer() = default;
  virtual std::byte* data()
      const = 0;  // a device address; host-readable only when Device::host_visible()
  virtual int64_t bytes() const = 0;
};

}  // namespace longhaul
