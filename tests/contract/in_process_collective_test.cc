#include "kernels/cpu/in_process_collective.h"

#include <deque>

#include "tests/contract/collective_contract_test.h"

namespace longhaul {
namespace {

class InProcessWorld final : public CollectiveWorld {
 public:
  explicit InProcessWorld(int width) : memory_(width) { ranks = MakeInProcessCollectives(width); }
  float* Up(int rank, const std::vector<float>& values) override {
    return memory_[rank].emplace_back(values).data();
  }
  std::vector<float> Down(int, const float* values, int64_t count) override {
    return {values, values + count};
  }

 private:
  std::vector<std::deque<std::vector<float>>> memory_;  // by rank
};

CollectiveMaker Maker(int width) {
  return {"Width" + std::to_string(width),
          [width] { return std::make_unique<InProcessWorld>(width); }};
}

INSTANTIATE_TEST_SUITE_P(InProcess, CollectiveContractTest,
                         testing::Values(Maker(1), Maker(2), Maker(3), Maker(8)),
                         CollectiveMakerName);

}  // namespace
}  // namespace longhaul
