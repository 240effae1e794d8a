// What the router knows about its workers at one instant, as plain data: filled by router/core from
// WorkerStatus and from the router's own counters, read by the policies. No behaviour but sums.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "common/engine/cost_model.h"

namespace longhaul {

// The work this router has under way on one worker.
struct WorkerLoad {
  int64_t requests = 0;
  int64_t kv_tokens = 0;     // prompt and output tokens at most, over `requests`
  double predicted_us = 0;   // prefill time, over requests without a first token yet
  double unreported_us = 0;  // the part sent after the worker's last status
  int64_t unreported_requests = 0;
};

struct WorkerView {
  std::string name;
  std::string address;
  uint64_t incarnation = 0;
  bool ready = false;            // connected, fresh, of our model, not draining
  bool draining = false;         // finishes what it has, takes nothing new
  std::string unready_why;       // for people
  uint64_t fingerprint_key = 0;  // equal keys may exchange KV

  // As of the last status.
  int block_tokens = 16;
  int64_t blocks_total = 0;
  int64_t blocks_live = 0;
  int64_t blocks_cached = 0;
  int64_t requests_running = 0;
  int64_t requests_queued = 0;
  double queue_predicted_us = 0;
  int64_t context_tokens_max = 0;
  CostModel cost;

  WorkerLoad load;

  // Predicted time before new work starts here.
  double wait_us() const { return queue_predicted_us + load.unreported_us; }
  // Requests here, whoever sent them: the worker's own count lags, ours does not know other
  // routers.
  int64_t requests() const {
    return std::max(requests_running + requests_queued + load.unreported_requests, load.requests);
  }
  int64_t kv_tokens_total() const { return blocks_total * block_tokens; }
  // Share of KV memory that requests hold or will hold, as far as this router knows.
  double kv_used() const {
    if (blocks_total <= 0) return 1.0;
    const int64_t ours = (load.kv_tokens + block_tokens - 1) / block_tokens;
    return static_cast<double>(std::max(blocks_live, ours)) / static_cast<double>(blocks_total);
  }
  // The longest sequence that this worker can ever hold.
  int64_t sequence_tokens_max() const {
    return context_tokens_max > 0 ? std::min(context_tokens_max, kv_tokens_total())
                                  : kv_tokens_total();
  }
};

struct ClusterView {
  std::vector<WorkerView> decode;
  std::vector<WorkerView> prefill;
};

}  // namespace longhaul
