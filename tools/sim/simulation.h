// Simulation: a whole cluster on virtual time under the faults of one seed, and what must hold.
// Production code runs unchanged: router dispatcher, cluster view and policies, schedulers, block
// managers, hand-off, sender and receiver. One thread; the same seed gives the same trace.
//
// Phases: load with faults; then faults off, everything healed and restarted but for loops that
// hang, until all requests have ended; then those too, and a probe to every pair of workers.
// Checked: every request has exactly one outcome, its text is the reference's, an error only where
// a fault could have caused one; no digest fails unless bytes were damaged; at the end nothing is
// under way and no block is live anywhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/sim/scenario.h"

namespace longhaul {

struct SimulationResult {
  uint64_t trace_hash = 0;
  std::vector<std::string> violations;  // empty: the seed passed
  int64_t virtual_us = 0;
  int64_t finished = 0;
  int64_t failed = 0;   // with an explicit error
  int64_t aborted = 0;  // by the client
  int64_t kills = 0;
  int64_t hangs = 0;
  int64_t attempts_failed = 0;
  int64_t preemptions = 0;
  int64_t bytes_corrupted = 0;
  int64_t messages_lost = 0;
};

SimulationResult Simulate(const Scenario& scenario);

}  // namespace longhaul
