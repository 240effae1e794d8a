#include "kernels/cuda/nccl_collective.h"

#include <deque>

#include "kernels/cuda/cuda_backend.h"
#include "tests/contract/collective_contract_test.h"
#include "tests/kernels/cuda/device_array.h"

namespace longhaul {
namespace {

class NcclWorld final : public CollectiveWorld {
 public:
  explicit NcclWorld(int width) : memory_(width) {
    std::vector<CudaDevice*> devices;
    for (int rank = 0; rank < width; ++rank) {
      devices_.push_back(CudaDevice::Open(rank, 0.1).value());
      devices.push_back(devices_.back().get());
    }
    ranks = MakeNcclCollectives(devices).value();
  }
  // Before the devices: what still waits on them ends.
  ~NcclWorld() override { ranks.clear(); }

  float* Up(int rank, const std::vector<float>& values) override {
    devices_[rank]->Bind();
    return memory_[rank].emplace_back(values).data();
  }
  std::vector<float> Down(int rank, const float* values, int64_t count) override {
    CudaDevice& device = *devices_[rank];
    std::vector<float> host(count);
    device.Copy(host.data(), values, count * sizeof(float));
    device.Wait(device.Record());
    return host;
  }

 private:
  std::vector<std::unique_ptr<CudaDevice>> devices_;
  std::vector<std::deque<DeviceArray<float>>> memory_;  // by rank
};

CollectiveMaker Maker(int width) {
  return {"Width" + std::to_string(width), [width]() -> std::unique_ptr<CollectiveWorld> {
            if (!CudaDeviceAnswers(width - 1).ok()) return nullptr;
            return std::make_unique<NcclWorld>(width);
          }};
}

INSTANTIATE_TEST_SUITE_P(Nccl, CollectiveContractTest, testing::Values(Maker(1), Maker(2)),
                         CollectiveMakerName);

TEST(NcclCollectiveTest, MoreRanksThanASumHasNoOrderForAreRefused) {
  const std::vector<CudaDevice*> devices(3);
  const absl::Status refused = MakeNcclCollectives(devices).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace longhaul
