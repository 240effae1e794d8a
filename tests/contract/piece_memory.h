// PieceMemory: the memory that the pieces of a transport's tests and benchmarks lie in, the host's
// or a GPU's, and what they do with it. Any thread, one at a time.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/model/backend.h"

namespace longhaul {

class PieceMemory {
 public:
  // An error, with the reason, where no such memory is. `device`: which GPU's.
  static absl::StatusOr<std::unique_ptr<PieceMemory>> Open(MemoryKind kind, int device = 0);

  KvMemory& memory() const { return *memory_; }

  std::unique_ptr<DeviceBuffer> Allocate(int64_t bytes) const;
  // A buffer whose bytes are all `value`; a multiple of kSlabBytes, as for the next two.
  std::unique_ptr<DeviceBuffer> Filled(int64_t bytes, std::byte value) const;
  void Fill(const DeviceBuffer& buffer, std::byte value) const;
  bool IsFilled(const DeviceBuffer& buffer, std::byte value) const;

  static constexpr int64_t kSlabBytes = 1 << 20;

 private:
  PieceMemory(std::unique_ptr<Backend> backend, KvMemory* memory)
      : backend_(std::move(backend)), memory_(memory) {}

  const std::unique_ptr<Backend> backend_;  // null for the host's
  KvMemory* const memory_;
};

}  // namespace longhaul
