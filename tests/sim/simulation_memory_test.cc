// Some of the seeds in a binary of their own, which also runs under the sanitizers: they see what a
// wrong token does not, such as a timer that outlives what it is about.
#include <gtest/gtest.h>

#include "common/base/log.h"
#include "tools/sim/simulation.h"

namespace longhaul {
namespace {

constexpr int kSeeds = 80;

TEST(SimulationMemoryTest, SeedsTouchNothingThatIsGone) {
  InitLog("sim", LogLevel::kError);
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Scenario scenario = DrawScenario(seed);
    EXPECT_TRUE(Simulate(scenario).violations.empty()) << Describe(scenario);
  }
}

}  // namespace
}  // namespace longhaul
