// The digests of slabs on the GPU against the host's, and copies beside the queue.
#include <gtest/gtest.h>

#include <random>

#include "common/model/kv_memory.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_kv_memory.h"
#include "tests/kernels/cuda/device_array.h"

namespace longhaul {
namespace {

class SlabDigestTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!CudaDeviceAnswers(0).ok()) GTEST_SKIP() << "no CUDA device";
    device_ = CudaDevice::Open(0, 0.5).value();
    memory_ = CudaKvMemory::Make(*device_).value();
  }
  std::unique_ptr<CudaDevice> device_;
  std::unique_ptr<CudaKvMemory> memory_;
};

std::vector<uint64_t> RandomWords(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint64_t> words(count);
  for (uint64_t& word : words) word = random();
  return words;
}

TEST_F(SlabDigestTest, EqualTheHosts) {
  for (const int64_t slab_bytes : {256, 1024, 1088, 2048, 4096, 6144, 20480, 65536, 65600}) {
    constexpr int64_t kSlabs = 37;
    const std::vector<uint64_t> words = RandomWords(kSlabs * slab_bytes / 8, slab_bytes);
    const DeviceArray<uint64_t> there(words);
    std::vector<const std::byte*> here_slabs, there_slabs;
    for (int64_t i = kSlabs - 1; i >= 0; --i) {
      here_slabs.push_back(reinterpret_cast<const std::byte*>(words.data()) + i * slab_bytes);
      there_slabs.push_back(reinterpret_cast<const std::byte*>(there.data()) + i * slab_bytes);
    }
    EXPECT_EQ(memory_->Digests(there_slabs, slab_bytes)->Take(),
              HostKvMemory().Digests(here_slabs, slab_bytes)->Take())
        << slab_bytes;
  }
}

TEST_F(SlabDigestTest, ManySlabsInOneCall) {
  constexpr int64_t kSlabs = 40000;
  constexpr int64_t kSlabBytes = 256;
  const std::vector<uint64_t> words = RandomWords(kSlabs * kSlabBytes / 8, 1);
  const DeviceArray<uint64_t> there(words);
  std::vector<const std::byte*> here_slabs, there_slabs;
  for (int64_t i = 0; i < kSlabs; ++i) {
    here_slabs.push_back(reinterpret_cast<const std::byte*>(words.data()) + i * kSlabBytes);
    there_slabs.push_back(reinterpret_cast<const std::byte*>(there.data()) + i * kSlabBytes);
  }
  EXPECT_EQ(memory_->Digests(there_slabs, kSlabBytes)->Take(),
            HostKvMemory().Digests(here_slabs, kSlabBytes)->Take());
}

TEST_F(SlabDigestTest, CopiesRuns) {
  const std::vector<uint64_t> words = RandomWords(64, 2);
  const DeviceArray<uint64_t> from(words);
  DeviceArray<uint64_t> to(64);
  const auto* source = reinterpret_cast<const std::byte*>(from.data());
  auto* target = reinterpret_cast<std::byte*>(to.data());
  memory_->Copy({{target, source + 256, 128}, {target + 128, source, 256}});
  const std::vector<uint64_t> got = to.Read();
  for (int i = 0; i < 16; ++i) EXPECT_EQ(got[i], words[32 + i]);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(got[16 + i], words[i]);
}

}  // namespace
}  // namespace longhaul
