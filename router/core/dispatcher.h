// Dispatcher: owns every generation under way, from placement to its last token. It asks the policy
// for a place, sends Generate there, hands tokens on, and when the worker is lost it replays prompt
// and emitted tokens on another one: sampling is a function of (seed, position), so the client sees
// the same text with nothing lost or doubled. Text, HTTP and gRPC are unknown here.
//
// Lives on one Loop, without locks; every call and callback happens there. The simulator uses it
// unchanged.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/model/sampling.h"
#include "common/runtime/loop.h"
#include "router/core/cluster.h"
#include "router/core/retry_budget.h"
#include "router/policy/policy.h"

namespace longhaul {

struct GenerateCall {
  std::string request_id;                    // in logs and on the workers
  std::vector<int32_t> prompt;               // not empty
  std::optional<int64_t> output_tokens_max;  // absent: whatever fits
  int64_t output_tokens_min = 0;
  bool ignore_eos = false;
  std::vector<int32_t> stop_tokens;
  SamplingParams sampling;  // with its seed
  uint64_t cache_salt = 0;
  int64_t deadline_us = 0;  // from Submit; 0: none
};

// How the first token came about.
struct GenerateStart {
  std::string decode_name;
  std::string prefill_name;  // empty: the decode worker computed the prompt
  std::string path;          // "remote", "local" or "cached"
  std::string transport;
  bool is_long = false;
  int64_t cached_tokens = 0;
  int64_t kv_bytes = 0;
  int64_t kv_us = 0;
  int64_t queue_us = 0;
  int64_t prefill_us = 0;
  int64_t transfer_exposed_us = 0;
  int64_t first_decode_us = 0;
  int64_t ttft_us = 0;  // Submit to here
  int attempts = 1;
};

struct GenerateEnd {
  enum class Reason : uint8_t { kLength, kStopToken };
  Reason reason = Reason::kLength;
  int32_t stop_token = -1;
  int attempts = 1;
};

// Who asked. OnStart once, before the first tokens or the end; then OnTokens; then exactly one of
// OnEnd and OnError, unless the Generation was destroyed. Never called from inside Submit; may
// destroy the Generation from inside any of them.
class GenerateListener {
 public:
  virtual ~GenerateListener() = default;
  virtual void OnStart(const GenerateStart& start) = 0;
  // `ends_with_stop`: the last of them is the token that stopped the generation; OnEnd follows.
  virtual void OnTokens(absl::Span<const SampledToken> tokens, bool ends_with_stop) = 0;
  virtual void OnEnd(const GenerateEnd& end) = 0;
  // Ready for ApiErrorFromStatus (router/api/error.h).
  virtual void OnError(const absl::Status& status) = 0;
};

// One generation; destroying it cancels the work everywhere.
class Generation {
 public:
  virtual ~Generation() = default;
};

struct DispatcherOptions {
  int attempts_max = 3;         // of one request, on different incarnations
  double retry_share = 0.1;     // repeated attempts per request offered
  double retry_reserve = 64;    // see RetryBudget
  int64_t requests_max = 4096;  // under way at once; above it a request is refused
  // A request that lost its worker waits this long for another one to be ready.
  int64_t replay_wait_us = 10'000'000;
  int64_t replay_poll_us = 100'000;
  int64_t context_tokens_max = 0;  // of the model; 0: as the workers say
};

// Since start, except where it says now.
struct DispatcherStats {
  int64_t requests = 0;  // submitted
  int64_t requests_now = 0;
  int64_t placed = 0;   // attempts sent to a worker
  int64_t replays = 0;  // attempts after the first
  int64_t refused_overloaded = 0;
  int64_t refused_no_worker = 0;
  int64_t refused_too_long = 0;
  int64_t ended = 0;
  int64_t failed = 0;
  int64_t cancelled = 0;
  int64_t replays_unaffordable = 0;  // by the retry budget
};

class Dispatcher {
 public:
  // All must outlive the dispatcher. It takes the cluster's OnLost.
  Dispatcher(Loop* loop, Cluster* cluster, Policy* policy, DispatcherOptions options);
  ~Dispatcher();

  // `listener` must outlive the Generation.
  std::unique_ptr<Generation> Submit(GenerateCall call, GenerateListener* listener);

  const DispatcherStats& stats() const { return stats_; }

 private:
  class Handle;
  struct Running;

  Running* Find(uint64_t id);
  void Attempt(uint64_t id);
  void Refuse(uint64_t id, const Refusal& refusal);
  void OnEvent(uint64_t id, int attempt, const GenerateEvent& event);
  void OnDone(uint64_t id, int attempt, const absl::Status& status);
  void AttemptFailed(uint64_t id, const absl::Status& status);
  void WorkerLost(uint64_t incarnation);
  void End(uint64_t id, GenerateEnd end);
  void Fail(uint64_t id, const absl::Status& status);
  void Cancel(uint64_t id);
  std::unique_ptr<Running> Take(uint64_t id);
  GenerateRequest MakeRequest(const Running& running, const Placement& placement,
                              const ClusterView& view) const;

  Loop* const loop_;
  Cluster* const cluster_;
  Policy* const policy_;
  const DispatcherOptions options_;
  RetryBudget budget_;
  DispatcherStats stats_;
  uint64_t next_id_ = 1;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Running>> running_;
  std::shared_ptr<Dispatcher*> self_;  // null inside once destroyed: posted tasks check it
};

}  // namespace longhaul
