// Cluster: the router's knowledge of its workers. It keeps a status stream to each of a fixed list
// of workers, notices the dead, the silent, the draining, the restarted and those that serve
// another model, and counts the work this router has under way on each. Lives on one Loop; only
// ready_counts() may be called from elsewhere.
//
// A worker is ready when its last status is younger than stale_after_us, its stream is up, it
// serves our model and it is not draining. A status stream that breaks makes a worker unready at
// once and is re-opened with growing pauses; the requests on the worker live or die by their own
// streams, unless the worker comes back under another incarnation or stays silent for
// lost_after_us: then OnLost names the incarnation whose requests must go elsewhere.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "common/base/hash.h"
#include "common/engine/worker_client.h"
#include "common/runtime/loop.h"
#include "router/policy/cluster_view.h"
#include "router/policy/policy.h"

namespace longhaul {

struct DecodeMember {
  std::string name;
  std::string address;
  std::unique_ptr<WorkerClient> client;
};

struct PrefillMember {
  std::string name;
  std::string address;  // what the decode worker dials
  std::unique_ptr<StatusClient> client;
};

struct ClusterMembers {
  std::vector<DecodeMember> decode;
  std::vector<PrefillMember> prefill;
};

struct ClusterOptions {
  int64_t status_period_us = 100'000;
  int64_t stale_after_us = 3'000'000;  // no new work after this silence: it may only be busy
  int64_t lost_after_us = 15'000'000;  // its requests are moved after this silence
  int64_t reconnect_min_us = 100'000;  // first pause; doubles up to the next
  int64_t reconnect_max_us = 2'000'000;
  Hash128 model_digest;  // all workers must serve it; zero accepts any
};

class Cluster {
 public:
  struct ReadyCounts {
    int decode = 0;
    int prefill = 0;
  };

  // One request's share of the load counters; gives it back when destroyed.
  class Lease {
   public:
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    // The prompt is done: its predicted time no longer counts, and a prefill worker is rid of it.
    void PromptDone();

   private:
    friend class Cluster;
    Lease() = default;
    std::shared_ptr<WorkerLoad> decode_;
    std::shared_ptr<WorkerLoad> computes_;  // null once the prompt is done
    int64_t kv_tokens_ = 0;
    double predicted_us_ = 0;
  };

  Cluster(Loop* loop, ClusterOptions options, ClusterMembers members);
  ~Cluster();

  // Opens the status streams.
  void Start();
  // `lost` is called with an incarnation that is gone, after the view has forgotten it.
  void OnLost(absl::AnyInvocable<void(uint64_t incarnation)> lost) { on_lost_ = std::move(lost); }

  // As of now. Valid until the next call of a non-const method or the next event on the loop.
  const ClusterView& View();
  WorkerClient* client(int decode) { return decode_[decode].client; }
  // Counts a request with `kv_tokens` in all until the lease is destroyed.
  std::unique_ptr<Lease> Reserve(const Placement& placement, int64_t kv_tokens);

  // Any thread.
  ReadyCounts ready_counts() const {
    return {ready_decode_.load(std::memory_order_relaxed),
            ready_prefill_.load(std::memory_order_relaxed)};
  }
  const ClusterOptions& options() const { return options_; }

 private:
  struct Worker {
    std::string name;
    std::string address;
    bool is_decode = false;
    std::unique_ptr<StatusClient> owned;
    StatusClient* status = nullptr;
    WorkerClient* client = nullptr;  // decode only

    std::unique_ptr<WorkerCall> watch;
    Loop::TimerId reconnect_timer = 0;
    int64_t reconnect_pause_us = 0;
    bool connected = false;
    std::string broken_why = "not connected yet";
    bool heard = false;  // any status, ever
    int64_t heard_us = 0;
    bool lost = false;  // silence was reported
    std::string refused_why;
    WorkerStatus last;
    uint64_t fingerprint_key = 0;
    CostModel cost;
    std::shared_ptr<WorkerLoad> load = std::make_shared<WorkerLoad>();
    WorkerLoad load_then;  // when `last` came
  };

  void Watch(Worker& worker);
  void OnStatus(Worker& worker, WorkerStatus status);
  void OnBroken(Worker& worker, const absl::Status& why);
  void Tick();
  void Refresh();
  std::string WhyRefused(const Worker& worker, const WorkerStatus& status) const;
  // Says which workers `worker`, whose status has come, cannot exchange KV with.
  void WarnOfStrangers(const Worker& worker, const WorkerStatus& status) const;
  void FillView(const Worker& worker, int64_t now_us, WorkerView& view) const;

  Loop* const loop_;
  const ClusterOptions options_;
  std::vector<Worker> decode_;  // never resized after construction
  std::vector<Worker> prefill_;
  ClusterView view_;
  absl::AnyInvocable<void(uint64_t)> on_lost_;
  Loop::TimerId tick_timer_ = 0;
  std::atomic<int> ready_decode_{0};
  std::atomic<int> ready_prefill_{0};
};

}  // namespace longhaul
