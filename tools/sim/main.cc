// longhaul_sim: runs seeds of the cluster simulation and tells what broke.
#include <cstdio>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_format.h"
#include "common/base/log.h"
#include "common/base/mutant.h"
#include "common/process/flags.h"
#include "tools/sim/simulation.h"

ABSL_FLAG(uint64_t, seed, 1, "the first seed");
ABSL_FLAG(int, seeds, 1, "how many, one after the other");
ABSL_FLAG(bool, verbose, false, "a line for every seed, and the workers' logs");
ABSL_FLAG(bool, stop_at_failure, true, "end with the first seed that fails");

int main(int argc, char** argv) {
  using namespace longhaul;
  ParseCommandLine(argc, argv,
                   "Simulates a cluster under faults; the same seed gives the same trace.");
  const bool verbose = absl::GetFlag(FLAGS_verbose);
  InitLog("sim", verbose ? LogLevel::kInfo : LogLevel::kError);
  const uint64_t first = absl::GetFlag(FLAGS_seed);
  SimulationResult total;
  int failed_seeds = 0, run = 0;
  uint64_t hash = 0;
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(absl::GetFlag(FLAGS_seeds));
       ++seed) {
    Scenario scenario = DrawScenario(seed);
    scenario.network.mutant_late_send_writes = MutantIs(Mutant::kLateSender);
    const SimulationResult result = Simulate(scenario);
    ++run;
    hash = hash * 31 + result.trace_hash;
    total.virtual_us += result.virtual_us;
    total.finished += result.finished;
    total.failed += result.failed;
    total.aborted += result.aborted;
    total.kills += result.kills;
    total.hangs += result.hangs;
    total.attempts_failed += result.attempts_failed;
    total.preemptions += result.preemptions;
    total.bytes_corrupted += result.bytes_corrupted;
    total.messages_lost += result.messages_lost;
    if (verbose) absl::PrintF("%s: trace %016x\n", Describe(scenario), result.trace_hash);
    if (result.violations.empty()) continue;
    ++failed_seeds;
    absl::PrintF("FAILED %s\n", Describe(scenario));
    for (const std::string& violation : result.violations) absl::PrintF("  %s\n", violation);
    absl::PrintF("  replay: longhaul_sim --seed=%d --verbose\n", seed);
    if (absl::GetFlag(FLAGS_stop_at_failure)) break;
  }
  absl::PrintF(
      "%d seeds, %d failed; %d requests finished, %d refused or failed with an error, %d left by "
      "their client; %d kills, %d hangs, "
      "%d hand-off attempts failed, %d step-backs, %d bytes damaged, %d messages lost; %.0f s of "
      "virtual time; trace "
      "%016x\n",
      run, failed_seeds, total.finished, total.failed, total.aborted, total.kills, total.hangs,
      total.attempts_failed, total.preemptions, total.bytes_corrupted, total.messages_lost,
      static_cast<double>(total.virtual_us) * 1e-6, hash);
  return failed_seeds == 0 ? 0 : 1;
}
