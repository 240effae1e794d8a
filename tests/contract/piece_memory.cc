#include "tests/contract/piece_memory.h"

#include <algorithm>
#include <vector>

#include "common/base/check.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_backend.h"

namespace longhaul {

absl::StatusOr<std::unique_ptr<PieceMemory>> PieceMemory::Open(MemoryKind kind, int device) {
  if (kind == MemoryKind::kHost) {
    return std::unique_ptr<PieceMemory>(new PieceMemory(nullptr, &HostKvMemory()));
  }
  LH_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, MakeCudaBackend({.device = device}));
  KvMemory* const memory = &backend->kv_memory();
  return std::unique_ptr<PieceMemory>(new PieceMemory(std::move(backend), memory));
}

std::unique_ptr<DeviceBuffer> PieceMemory::Allocate(int64_t bytes) const {
  auto buffer = memory_->Allocate(bytes);
  LH_CHECK(buffer.ok(), buffer.status().ToString());
  return *std::move(buffer);
}

std::unique_ptr<DeviceBuffer> PieceMemory::Filled(int64_t bytes, std::byte value) const {
  std::unique_ptr<DeviceBuffer> buffer = Allocate(bytes);
  Fill(*buffer, value);
  return buffer;
}

void PieceMemory::Fill(const DeviceBuffer& buffer, std::byte value) const {
  const std::vector<std::byte> slab(kSlabBytes, value);
  memory_->Copy({{buffer.data(), slab.data(), kSlabBytes}});
  for (int64_t done = kSlabBytes; done < buffer.bytes(); done *= 2) {
    memory_->Copy({{buffer.data() + done, buffer.data(), std::min(done, buffer.bytes() - done)}});
  }
}

bool PieceMemory::IsFilled(const DeviceBuffer& buffer, std::byte value) const {
  const std::vector<std::byte> slab(kSlabBytes, value);
  const uint64_t expected = HostKvMemory().Digests({slab.data()}, kSlabBytes)->Take()[0];
  std::vector<const std::byte*> slabs;
  for (int64_t at = 0; at < buffer.bytes(); at += kSlabBytes) slabs.push_back(buffer.data() + at);
  const std::vector<uint64_t> digests = memory_->Digests(slabs, kSlabBytes)->Take();
  return std::all_of(digests.begin(), digests.end(),
                     [expected](uint64_t digest) { return digest == expected; });
}

}  // namespace longhaul
