#include "common/model/kv_memory.h"

#include <cstring>
#include <utility>

#include "common/base/hash.h"

namespace longhaul {
namespace {

class HostBuffer final : public DeviceBuffer {
 public:
  // Not zeroed: pages that are never used are never touched.
  explicit HostBuffer(int64_t bytes)
      : data_(std::make_unique_for_overwrite<std::byte[]>(bytes)), bytes_(bytes) {}
  std::byte* data() const override { return data_.get(); }
  int64_t bytes() const override { return bytes_; }

 private:
  const std::unique_ptr<std::byte[]> data_;
  const int64_t bytes_;
};

class HostDigests final : public SlabDigests {
 public:
  explicit HostDigests(std::vector<uint64_t> digests) : digests_(std::move(digests)) {}
  bool Ready() override { return true; }
  std::vector<uint64_t> Take() override { return std::move(digests_); }

 private:
  std::vector<uint64_t> digests_;
};

class HostMemory final : public KvMemory {
 public:
  MemoryKind kind() const override { return MemoryKind::kHost; }
  void BindThread() override {}
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override {
    return std::make_unique<HostBuffer>(bytes);
  }
  void Copy(absl::Span<const Run> runs) override {
    for (const Run& run : runs) std::memcpy(run.to, run.from, run.bytes);
  }
  std::unique_ptr<SlabDigests> Digests(absl::Span<const std::byte* const> slabs,
                                       int64_t slab_bytes) override {
    std::vector<uint64_t> digests;
    digests.reserve(slabs.size());
    for (const std::byte* slab : slabs) digests.push_back(Hash64Of(slab, slab_bytes));
    return std::make_unique<HostDigests>(std::move(digests));
  }
};

}  // namespace

KvMemory& HostKvMemory() {
  static HostMemory memory;
  return memory;
}

}  // namespace longhaul
