// KvMemory: the door to the memory that KV pools lie in, for those who move KV beside the device's
// queue of work. Makers: host memory (here), and each Device whose memory the host cannot read.
//
// Nothing here is ordered with the queue: who asks knows that the bytes are written, and that
// nobody writes them. But for Digests, every method returns when its work is done. One caller at a
// time, the transfer thread; for host memory any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/device_buffer.h"

namespace longhaul {

enum class MemoryKind { kHost, kCuda };

// Digests that are being computed. The slabs stay as they are until it is ready or gone; its end
// waits. Not outlived by its KvMemory.
class SlabDigests {
 public:
  virtual ~SlabDigests() = default;
  virtual bool Ready() = 0;
  // In the order of the slabs. Waits; once.
  virtual std::vector<uint64_t> Take() = 0;
};

class KvMemory {
 public:
  struct Run {
    std::byte* to = nullptr;
    const std::byte* from = nullptr;
    int64_t bytes = 0;
  };

  virtual ~KvMemory() = default;

  virtual MemoryKind kind() const = 0;  // any thread

  // For a thread whose libraries reach this memory by themselves: once before the first of them
  // does.
  virtual void BindThread() = 0;

  // Memory of the same kind, for bytes on their way, beside what the device's own share counts. Any
  // thread may free it, before the KvMemory. Error: ResourceExhausted.
  virtual absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) = 0;

  // Between any memory that this process can reach, other devices' included; all runs of a call
  // from one place to one place.
  virtual void Copy(absl::Span<const Run> runs) = 0;

  // Begins the 64-bit XXH3 of each slab, the same from every maker.
  virtual std::unique_ptr<SlabDigests> Digests(absl::Span<const std::byte* const> slabs,
                                               int64_t slab_bytes) = 0;
};

// Plain memory of this process.
KvMemory& HostKvMemory();

}  // namespace longhaul
