// PrefillWorker: computes the KV of prompts chunk by chunk and streams it to decode workers, layer
// by layer while the next layer computes. The shell around PrefillScheduler, BlockManager and
// KvSender. Lives on one Loop.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/engine/cost_model.h"
#include "common/engine/executor.h"
#include "common/engine/prefill_client.h"
#include "common/engine/prefill_scheduler.h"
#include "common/kv/block_manager.h"
#include "common/model/sharded_kv_pool.h"
#include "common/runtime/loop.h"
#include "kv_transfer/kv_sender.h"
#include "kv_transfer/transfer_engine.h"

namespace longhaul {

struct PrefillWorkerOptions {
  std::string name = "prefill-0";
  std::string model;         // shown in the status
  uint64_t incarnation = 0;  // random, of this start of the process
  Fingerprint fingerprint;
  int64_t context_tokens_max = 0;  // prompts longer than this are refused
  int64_t prompts_max = 1024;  // accepted and not finished; more are refused with ResourceExhausted
  int64_t bypass_max =
      16;  // how often a prompt that waits for memory may be overtaken by smaller ones
  int64_t fence_us =
      2'000'000;  // a cancelled transfer that is not quiet by then has its link closed
  // A step that takes so much longer than many times its prediction hangs: the worker says no more
  // until it ends, and its decode workers go elsewhere.
  int64_t step_stall_us = 10'000'000;
  int heartbeats_missed_max = 5;  // a decode worker that said nothing for longer has hung
  int links_idle_max = 64;        // kept beside those that carry something
  PrefillSchedulerOptions scheduler;
};

// Counts since the start; the mains publish them as metrics.
struct PrefillWorkerCounters {
  int64_t prompts_accepted = 0;
  int64_t prompts_finished = 0;
  int64_t prompts_refused = 0;
  int64_t prompts_cancelled = 0;
  int64_t prompts_failed = 0;
  int64_t prompts_abandoned = 0;  // of those failed: the decode worker fell silent
  int64_t tokens_computed = 0;
  int64_t tokens_cached = 0;
  int64_t chunks_computed = 0;
  int64_t bytes_sent = 0;
  int64_t transfers_cancelled = 0;  // of the prompts cancelled, those that had begun
  int64_t transfers_failed = 0;     // of the prompts failed
  int64_t links_fenced = 0;
  int64_t cancel_to_free_us_max = 0;
};

class PrefillWorker final : public PrefillEndpoint {
 public:
  // Everything handed in outlives the worker. `pool` is the memory that `executor` works on.
  PrefillWorker(PrefillWorkerOptions options, Loop* loop, Executor* executor,
                TransferEngine* engine, const ShardedKvPool& pool);
  // Calls still open are forgotten: no callback comes any more.
  ~PrefillWorker() override;

  std::unique_ptr<PrefillCall> Prefill(PrefillCommand::Open open, OnPrefillEvent on_event,
                                       OnPrefillDone done) override;
  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override;

  // Refuses new prompts from now on; those accepted are finished.
  void Drain() { draining_ = true; }
  bool idle() const { return sessions_.empty(); }

  WorkerStatus Status() const;
  const PrefillWorkerCounters& counters() const { return counters_; }
  int64_t links() const { return static_cast<int64_t>(links_.size()); }
  const BlockManager& blocks() const { return blocks_; }

  // Called with the time of each step, and when a cancelled prompt's blocks are free; for metrics.
  struct Observer {
    virtual ~Observer() = default;
    virtual void OnStep(int64_t compute_us) = 0;
    virtual void OnCancelledFree(int64_t since_cancel_us) = 0;
  };
  void set_observer(Observer* observer) { observer_ = observer; }

 private:
  // One prompt of one attempt of one decode worker.
  struct Session {
    SequenceId id = 0;
    std::string request_id;
    uint32_t transfer_id = 0;
    uint64_t cache_salt = 0;
    uint64_t decode_incarnation = 0;
    std::string decode_name;
    std::string link_address;
    std::vector<int32_t> tokens;
    int64_t first_position = 0;
    int64_t chunk_tokens = 0;
    int chunks_granted = 0;
    int kv_parts = 1;
    int64_t heartbeat_us = 0;  // an event, and a grant, at least this often; 0: none wanted
    std::vector<BlockId> blocks;
    int64_t cached_tokens = 0;
    int64_t computed = 0;   // positions whose KV is stored in every layer
    int64_t published = 0;  // blocks named in the cache
    LinkId link = 0;
    std::unique_ptr<KvSender> sender;  // null until admitted
    OnPrefillEvent on_event;
    OnPrefillDone done;
    bool in_step = false;
    bool cancelled = false;
    int bypassed = 0;
    int64_t received_us = 0;
    int64_t cancelled_us = 0;
    int64_t compute_us = 0;
    int64_t computed_at_us = 0;  // when the last layer of the last chunk was stored
    Loop::TimerId heartbeat_timer = 0;
    int heartbeats_missed = 0;
  };
  struct PeerLink {
    std::string name;  // of the decode worker
    std::string address;
    LinkId link = 0;
    int64_t used_us = 0;
    bool replaced = false;  // the decode worker has another incarnation since
  };
  class Call;
  struct Guard;

  absl::Status Check(const PrefillCommand::Open& open) const;
  Session* Find(SequenceId id);
  void Cancel(SequenceId id);
  void Grant(SequenceId id, int chunks);
  void ArmHeartbeat(Session& session);
  void Heartbeat(SequenceId id);
  int64_t StepLateUs() const;
  bool StepHangs() const;
  void AdmitWaiting();
  bool Admit(Session& session);
  void SayStarted(const Session& session);
  LinkId LinkTo(const Session& session);
  void CloseIdleLinks();
  void MakeSender(Session& session);
  int64_t ComputeUs(const Session& session) const;
  void MaybeStep();
  void OnLayer(SequenceId id, int layer, int64_t position_end);
  void OnStepDone(const PrefillScheduler::Chunk& chunk, const StepResult& result);
  void OnQuiesced(SequenceId id, const absl::Status& status);
  void FinishIfQuiet(Session& session);
  void Fence(SequenceId id);
  void End(Session& session, const absl::Status& status);

  const PrefillWorkerOptions options_;
  Loop* const loop_;
  Executor* const executor_;
  TransferEngine* const engine_;
  const ShardedKvPool pool_;
  BlockManager blocks_;
  CostModel cost_;
  PrefillScheduler scheduler_;
  std::map<SequenceId, std::unique_ptr<Session>> sessions_;
  std::deque<SequenceId> waiting_;      // for memory, in order of arrival
  std::map<uint64_t, PeerLink> links_;  // by the decode worker's incarnation
  PrefillWorkerCounters counters_;
  Observer* observer_ = nullptr;
  SequenceId next_id_ = 1;
  uint64_t next_step_ = 1;
  bool stepping_ = false;
  int64_t step_started_us_ = 0;
  double step_predicted_us_ = 0;
  bool draining_ = false;
  std::shared_ptr<Guard> guard_;  // tells late tasks that the worker is gone
};

}  // namespace longhaul
