// The contract suite of the door Collective: collective_contract_test.cc holds the cases, each
// maker's file instantiates them.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/model/collective.h"

namespace longhaul {

// A group and its ranks' memory.
class CollectiveWorld {
 public:
  virtual ~CollectiveWorld() = default;
  std::vector<std::unique_ptr<Collective>> ranks;

  // A copy of the values in the rank's memory, which lives as long as the world.
  virtual float* Up(int rank, const std::vector<float>& values) = 0;
  // After all that the rank has queued.
  virtual std::vector<float> Down(int rank, const float* values, int64_t count) = 0;
};

struct CollectiveMaker {
  std::string name;
  // Null where the machine has no such devices.
  std::function<std::unique_ptr<CollectiveWorld>()> make;
};

inline std::string CollectiveMakerName(const testing::TestParamInfo<CollectiveMaker>& info) {
  return info.param.name;
}

class CollectiveContractTest : public testing::TestWithParam<CollectiveMaker> {
 protected:
  void SetUp() override {
    world_ = GetParam().make();
    if (world_ == nullptr) GTEST_SKIP() << "not enough devices";
  }
  int width() const { return static_cast<int>(world_->ranks.size()); }
  // body(rank) on a thread for each rank but those in `without`.
  void OnRanks(const std::function<void(int)>& body, int without = -1);
  // What every rank has after an AllReduce of rows of `columns`; values[rank] is what it brings.
  std::vector<std::vector<float>> Reduced(const std::vector<std::vector<float>>& values,
                                          int64_t columns);

  std::unique_ptr<CollectiveWorld> world_;
};

}  // namespace longhaul
