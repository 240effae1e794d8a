// What the transfer thread asks of a GPU's memory: digests of slabs, and copies of scattered runs
// to one place and back, as the gathering and spreading of blocks. Each beside one plain copy of as
// many bytes.
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "common/base/check.h"
#include "common/model/backend.h"
#include "kernels/cuda/cuda_backend.h"

namespace longhaul {
namespace {

constexpr int64_t kSlabBytes = 256 << 10;  // of Llama-3-8B's shape
constexpr int kRepeats = 50;

// Microseconds of one call, on average over `kRepeats` after one for warmth.
double Microseconds(const std::function<void()>& call) {
  call();
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kRepeats; ++i) call();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
             .count() /
         kRepeats;
}

void Print(const char* what, int slabs, double us) {
  const double bytes = static_cast<double>(slabs) * kSlabBytes;
  std::printf("%-22s %5d slabs %8.1f MiB %9.1f us %8.1f GB/s\n", what, slabs, bytes / (1 << 20), us,
              bytes / us / 1e3);
}

void Run() {
  const absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCudaBackend({});
  if (!backend.ok()) {
    std::printf("no GPU: %s\n", backend.status().ToString().c_str());
    return;
  }
  KvMemory& memory = (*backend)->kv_memory();
  constexpr int kSlabsMax = 4096;
  const auto pool = memory.Allocate(2 * kSlabsMax * kSlabBytes);
  const auto packed = memory.Allocate(kSlabsMax * kSlabBytes);
  LH_CHECK(pool.ok() && packed.ok(), "no memory");
  for (const int slabs : {1, 2, 8, 32, 128, 512, kSlabsMax}) {
    std::vector<const std::byte*> asked;
    std::vector<KvMemory::Run> gather, spread;
    for (int64_t i = 0; i < slabs; ++i) {
      std::byte* const scattered = (*pool)->data() + 2 * i * kSlabBytes;
      std::byte* const here = (*packed)->data() + i * kSlabBytes;
      asked.push_back(scattered);
      gather.push_back({here, scattered, kSlabBytes});
      spread.push_back({scattered, here, kSlabBytes});
    }
    const KvMemory::Run whole = {(*packed)->data(), (*pool)->data(), slabs * kSlabBytes};
    Print("digests", slabs, Microseconds([&] { memory.Digests(asked, kSlabBytes)->Take(); }));
    Print("gathered", slabs, Microseconds([&] { memory.Copy(gather); }));
    Print("spread", slabs, Microseconds([&] { memory.Copy(spread); }));
    Print("one plain copy", slabs, Microseconds([&] { memory.Copy({whole}); }));
  }
}

}  // namespace
}  // namespace longhaul

int main() { longhaul::Run(); }
