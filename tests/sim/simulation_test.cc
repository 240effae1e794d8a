// The seeds of the cluster simulation, and the mutants that prove that the seeds can see.
#include "tools/sim/simulation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"

namespace longhaul {
namespace {

constexpr int kSeeds = 320;

std::filesystem::path BinaryFolder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path();
}

TEST(SimulationTest, EverySeedKeepsEveryPromise) {
  InitLog("sim", LogLevel::kError);
  SimulationResult total;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Scenario scenario = DrawScenario(seed);
    const SimulationResult result = Simulate(scenario);
    for (const std::string& violation : result.violations) {
      ADD_FAILURE() << Describe(scenario) << ": " << violation
                    << "\nreplay: build/release/bin/longhaul_sim --seed=" << seed << " --verbose";
    }
    total.finished += result.finished;
    total.kills += result.kills;
    total.hangs += result.hangs;
    total.attempts_failed += result.attempts_failed;
    total.preemptions += result.preemptions;
    total.bytes_corrupted += result.bytes_corrupted;
    total.messages_lost += result.messages_lost;
  }
  // A simulation in which nothing happens proves nothing.
  EXPECT_GT(total.finished, 5'000);
  EXPECT_GT(total.kills, 100);
  EXPECT_GT(total.hangs, 50);
  EXPECT_GT(total.attempts_failed, 300);
  EXPECT_GT(total.preemptions, 50);
  EXPECT_GT(total.bytes_corrupted, 100);
  EXPECT_GT(total.messages_lost, 50);
}

TEST(SimulationTest, TheSameSeedGivesTheSameTrace) {
  InitLog("sim", LogLevel::kError);
  uint64_t before = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Scenario scenario = DrawScenario(seed);
    const uint64_t trace = Simulate(scenario).trace_hash;
    EXPECT_EQ(trace, Simulate(scenario).trace_hash) << Describe(scenario);
    EXPECT_NE(trace, before) << "two seeds, one trace";
    before = trace;
  }
}

class MutantTest : public testing::TestWithParam<int> {};

// Each program has one known bug open (common/base/mutant.h); some seed must show it, and say how
// to see it again.
TEST_P(MutantTest, IsCaught) {
  const std::string command =
      absl::StrCat((BinaryFolder() / "longhaul_sim_mutant_").string(), GetParam(),
                   " --seed=1 --seeds=", kSeeds, " 2>/dev/null");
  std::FILE* const pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  char buffer[4096];
  while (const size_t got = std::fread(buffer, 1, sizeof(buffer), pipe)) output.append(buffer, got);
  const int status = pclose(pipe);
  ASSERT_TRUE(WIFEXITED(status)) << "it crashed instead of being caught";
  EXPECT_EQ(WEXITSTATUS(status), 1) << output;
  EXPECT_THAT(output, testing::HasSubstr("FAILED seed"));
  EXPECT_THAT(output, testing::HasSubstr("replay: longhaul_sim --seed="));
}

INSTANTIATE_TEST_SUITE_P(All, MutantTest, testing::Range(1, 9));

}  // namespace
}  // namespace longhaul
