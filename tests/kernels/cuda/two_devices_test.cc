// KV between pools on two GPUs of one process, as a standalone with --decode_device has it.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <random>
#include <vector>

#include "common/model/kv_memory.h"
#include "kernels/cuda/cuda_backend.h"

namespace longhaul {
namespace {

constexpr int64_t kSlabBytes = 16 << 10;
constexpr int64_t kSlabs = 64;

class TwoDevicesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDevices() < 2) GTEST_SKIP() << "fewer than two CUDA devices";
    std::mt19937_64 random(20261124);
    for (int device : {0, 1}) {
      auto backend = MakeCudaBackend({.device = device, .memory_share = 0.05});
      ASSERT_TRUE(backend.ok()) << backend.status();
      backends_[device] = *std::move(backend);
      auto pool = backends_[device]->Allocate(kSlabs * kSlabBytes);
      ASSERT_TRUE(pool.ok()) << pool.status();
      pools_[device] = *std::move(pool);
      bytes_[device].resize(kSlabs * kSlabBytes);
      for (std::byte& byte : bytes_[device]) byte = static_cast<std::byte>(random());
      memory(device).Copy({{pools_[device]->data(), bytes_[device].data(), kSlabs * kSlabBytes}});
    }
  }
  KvMemory& memory(int device) { return backends_[device]->kv_memory(); }

  // Copies slab pairs {to, from} by the receiving device, there and in what it should be.
  void Move(int to, int from, const std::vector<std::pair<int, int>>& slabs) {
    std::vector<KvMemory::Run> runs;
    for (const auto& [target, source] : slabs) {
      runs.push_back({pools_[to]->data() + target * kSlabBytes,
                      pools_[from]->data() + source * kSlabBytes, kSlabBytes});
      std::copy_n(bytes_[from].begin() + source * kSlabBytes, kSlabBytes,
                  bytes_[to].begin() + target * kSlabBytes);
    }
    memory(to).Copy(runs);
  }

  void ExpectAllBytes() {
    for (int device : {0, 1}) {
      std::vector<std::byte> held(kSlabs * kSlabBytes);
      memory(device).Copy({{held.data(), pools_[device]->data(), kSlabs * kSlabBytes}});
      EXPECT_TRUE(held == bytes_[device]) << "GPU " << device;
    }
  }

  std::array<std::unique_ptr<Backend>, 2> backends_;
  std::array<std::unique_ptr<DeviceBuffer>, 2> pools_;
  std::array<std::vector<std::byte>, 2> bytes_;
};

TEST_F(TwoDevicesTest, OneRunCrosses) {
  Move(1, 0, {{5, 9}});
  ExpectAllBytes();
}

TEST_F(TwoDevicesTest, ManyRunsCrossInBothDirectionsAndNothingElseIsWritten) {
  std::vector<std::pair<int, int>> slabs;
  for (int i = 0; i < kSlabs / 2; ++i) slabs.emplace_back(2 * i, (7 * i + 3) % kSlabs);
  Move(1, 0, slabs);
  ExpectAllBytes();
  Move(0, 1, slabs);
  ExpectAllBytes();
}

TEST_F(TwoDevicesTest, BothDigestTheSame) {
  std::vector<std::pair<int, int>> all;
  for (int i = 0; i < kSlabs; ++i) all.emplace_back(i, i);
  Move(1, 0, all);
  std::array<std::vector<uint64_t>, 2> digests;
  for (int device : {0, 1}) {
    std::vector<const std::byte*> slabs;
    for (int i = 0; i < kSlabs; ++i) slabs.push_back(pools_[device]->data() + i * kSlabBytes);
    digests[device] = memory(device).Digests(slabs, kSlabBytes)->Take();
  }
  EXPECT_EQ(digests[0], digests[1]);
}

}  // namespace
}  // namespace longhaul
