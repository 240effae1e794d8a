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
  double unreported_us = 0;  // the part of it sent after the worker's last status
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
  double prompt_share = 0;  // of a decode worker's time, for prompts that it computes itself
  CostModel cost;

  WorkerLoad load;
  WorkerLoad load_then;  // when the last status came

  int64_t kv_tokens_total() const { return blocks_total * block_tokens; }

  // What a status says is a status period old, what this router has under way it knows as of now.
  // So what others have is the status less what was ours when it came, and a request that has just
  // ended is no load any more.
  int64_t requests() const {
    return Others(requests_running + requests_queued, load_then.requests) + load.requests;
  }
  // Predicted time of the work here that is not done.
  double wait_us() const {
    return std::min(queue_predicted_us + load.unreported_us,
                    Others(queue_predicted_us, load_then.predicted_us) + load.predicted_us);
  }
  // By how much that delays a prompt which takes `alone_us` by itself: all prompts are slowed alike
  // (PrefillScheduler), so of each other one it waits for no more than its own time.
  double wait_us(double alone_us) const {
    return std::min(wait_us(), static_cast<double>(std::max<int64_t>(requests(), 1)) * alone_us);
  }
  // Tokens in live blocks.
  int64_t kv_tokens_live() const {
    const int64_t reported = blocks_live * block_tokens;
    return std::min(reported, Others(reported, load_then.kv_tokens) + load.kv_tokens);
  }
  // Share of KV memory that requests hold or will hold, as far as this router knows.
  double kv_used() const {
    if (blocks_total <= 0) return 1.0;
    return static_cast<double>(std::max(kv_tokens_live(), load.kv_tokens)) /
           static_cast<double>(kv_tokens_total());
  }
  // The longest sequence that this worker can ever hold.
  int64_t sequence_tokens_max() const {
    return context_tokens_max > 0 ? std::min(context_tokens_max, kv_tokens_total())
                                  : kv_tokens_total();
  }

 private:
  template <typename T>
  static T Others(T reported, T ours_then) {
    return std::max(reported - ours_then, T{0});
  }
};

struct ClusterView {
  std::vector<WorkerView> decode;
  std::vector<WorkerView> prefill;
};

}  // namespace longhaul
