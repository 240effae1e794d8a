// LoadWorld: the production router and workers on one VirtualLoop, with devices that only take
// time, for questions about load: what a layout of workers and a policy make of arriving requests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/engine/cost_model.h"
#include "router/policy/policy.h"

namespace longhaul {

struct LoadOptions {
  int prefill_workers = 1;
  int decode_workers = 1;
  CostModel cost;               // of every worker's device
  int64_t kv_tokens = 900'000;  // of each worker
  int block_tokens = 64;
  int64_t transfer_chunk_tokens = 2048;
  int64_t batch_sequences_max = 256;
  double step_target_us = 20'000;
  std::string policy = "context-length";
  PolicyOptions policy_options;
};

struct LoadRequest {
  int64_t due_us = 0;
  std::vector<int32_t> prompt;
  int64_t output_tokens = 1;
};

// What became of a request; times since the first one could be due, 0 for what did not happen.
struct LoadAnswer {
  int64_t first_us = 0;
  int64_t last_us = 0;
  int64_t tokens = 0;
  bool whole = false;
  absl::Status error;
};

// Runs all requests, and `drain_us` beyond the last one's arrival.
std::vector<LoadAnswer> RunLoad(const LoadOptions& options,
                                const std::vector<LoadRequest>& requests, int64_t drain_us);

}  // namespace longhaul
