#include "kernels/cpu/cpu_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace longhaul {
namespace {

class CpuBuffer final : public DeviceBuffer {
 public:
  CpuBuffer(std::byte* data, int64_t bytes, int64_t& allocated_bytes)
      : data_(data), bytes_(bytes), allocated_bytes_(allocated_bytes) {
    allocated_bytes_ += bytes_;
  }
  ~CpuBuffer() override {
    munmap(data_, bytes_);
    allocated_bytes_ -= bytes_;
  }
  std::byte* data() const override { return data_; }
  int64_t bytes() const override { return bytes_; }

 private:
  std::byte* const data_;
  const int64_t bytes_;
  int64_t& allocated_bytes_;
};

}  // namespace

int64_t CpuMemory::free_bytes() const {
  const int64_t machine_bytes = int64_t{sysconf(_SC_AVPHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  if (bytes_max_ == 0) return machine_bytes;
  return std::min(machine_bytes, bytes_max_ - allocated_bytes_);
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> CpuMemory::Allocate(int64_t bytes) {
  LH_CHECK(bytes > 0, absl::StrCat("a buffer of ", bytes, " bytes"));
  const int64_t left = free_bytes();
  void* data = MAP_FAILED;
  if (bytes <= left) {
    data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a buffer of ", bytes, " bytes: ", left, " bytes are left"));
  }
  madvise(data, bytes, MADV_HUGEPAGE);  // fewer page walks for attention; only a wish
  return std::make_unique<CpuBuffer>(static_cast<std::byte*>(data), bytes, allocated_bytes_);
}

}  // namespace longhaul
