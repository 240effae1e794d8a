// Scenario: what one seed stands for: the shape of the cluster, the load, and which faults are
// switched on. Each seed switches a random subset of faults on, so that some seeds show each fault
// alone and others show them together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kv_transfer/simulated_network.h"

namespace longhaul {

struct Scenario {
  uint64_t seed = 0;

  int prefill_workers = 1;
  int decode_workers = 1;
  int prefill_width = 1;  // ranks of each worker
  int decode_width = 1;
  int64_t prefill_blocks = 0;
  int64_t decode_blocks = 0;
  int64_t chunk_tokens = 8;
  int window_chunks = 2;
  std::string policy;

  int requests = 0;
  int64_t prompt_tokens_max = 0;
  int64_t output_tokens_max = 0;
  double shared_prefix = 0;  // share of prompts that begin like another one
  double client_aborts = 0;  // share of clients that leave at some moment

  int64_t load_us = 0;  // requests come, and faults happen, in [0, load_us]
  int crashes = 0;      // kill and restart of a random worker
  int partitions = 0;   // of the data plane between two workers, healed later
  int stops = 0;        // a worker's data plane stands still for a while
  int hangs = 0;        // a worker's loop stands still until every request has ended
  int64_t rpc_delay_us = 50;
  int64_t rpc_jitter_us = 0;
  int64_t rpc_detect_us = 1'000;  // until the other side of a crash knows
  double rpc_duplicates = 0;      // prefill events that come twice
  double rpc_strays = 0;  // prefill events of an earlier attempt that come again in a later stream
  SimulatedNetworkOptions network;

  bool Harmless() const;  // no fault that could end a request with an error
};

Scenario DrawScenario(uint64_t seed);
// One line for people: which faults are on.
std::string Describe(const Scenario& scenario);

}  // namespace longhaul
