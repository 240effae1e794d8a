#include "common/model/kv_memory.h"

#include <cstring>

#include "common/base/hash.h"

namespace longhaul {
namespace {

class HostMemory final : public KvMemory {
 public:
  void Copy(absl::Span<const Run> runs) override {
    for (const Run& run : runs) std::memcpy(run.to, run.from, run.bytes);
  }
  std::vector<uint64_t> Digests(absl::Span<const std::byte* const> slabs,
                                int64_t slab_bytes) override {
    std::vector<uint64_t> digests;
    digests.reserve(slabs.size());
    for (const std::byte* slab : slabs) digests.push_back(Hash64Of(slab, slab_bytes));
    return digests;
  }
};

}  // namespace

KvMemory& HostKvMemory() {
  static HostMemory memory;
  return memory;
}

}  // namespace longhaul
