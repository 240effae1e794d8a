// DecodeWorker: takes a request, gets its prompt's KV from a prefill worker (or computes it),
// generates its tokens in a batch with others. The shell around DecodeScheduler, HandOff and
// BlockManager. Lives on one Loop.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/engine/cost_model.h"
#include "common/engine/executor.h"
#include "common/engine/worker_client.h"
#include "common/kv/block_manager.h"
#include "common/model/sharded_kv_pool.h"
#include "common/runtime/loop.h"
#include "decode_worker/decode_scheduler.h"
#include "decode_worker/hand_off.h"
#include "decode_worker/link_pool.h"
#include "kv_transfer/transfer_engine.h"

namespace longhaul {

struct DecodeWorkerOptions {
  std::string name = "decode-0";
  std::string model;         // shown in the status
  std::string transport;     // the KV wire's name, shown in the timing
  uint64_t incarnation = 0;  // random, of this start of the process
  Fingerprint fingerprint;
  int64_t vocab = 0;                // tokens outside [0, vocab) are refused
  std::vector<int32_t> eos_tokens;  // end a generation unless the request ignores them
  int64_t local_prefill_tokens_max =
      32;                      // a shorter remainder is computed here: cheaper than a hand-off
  bool local_fallback = true;  // compute a prompt here when no prefill worker can
  DecodeSchedulerOptions scheduler;
  HandOffOptions hand_off;
};

// Counts since the start; the mains publish them as metrics.
struct DecodeWorkerCounters {
  int64_t requests_accepted = 0;
  int64_t requests_finished = 0;
  int64_t requests_refused = 0;
  int64_t requests_cancelled = 0;
  int64_t requests_failed = 0;
  int64_t tokens_generated = 0;
  int64_t tokens_prefilled = 0;  // prompt tokens computed here
  int64_t tokens_cached = 0;     // prompt tokens found in the cache here
  int64_t steps = 0;
  int64_t hand_offs = 0;  // begun
  int64_t hand_offs_whole = 0;
  int64_t hand_offs_cancelled = 0;
  int64_t hand_off_attempts_failed = 0;
  int64_t digest_mismatches = 0;  // of those, because KV arrived damaged
  int64_t local_prefills = 0;
  int64_t local_fallbacks = 0;  // of those, because no prefill worker could
  int64_t kv_bytes_received = 0;
  int64_t stale_messages = 0;  // of an earlier attempt, ignored
  int64_t cancel_to_free_us_max = 0;
};

class DecodeWorker final : public WorkerClient {
 public:
  // Everything handed in outlives the worker. `pool` is the memory that `executor` works on.
  DecodeWorker(DecodeWorkerOptions options, Loop* loop, Executor* executor, TransferEngine* engine,
               PrefillClient* prefill, const ShardedKvPool& pool);
  // Calls still open are forgotten: no callback comes any more.
  ~DecodeWorker() override;

  std::unique_ptr<WorkerCall> Generate(GenerateRequest request, OnEvent on_event,
                                       OnDone done) override;
  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override;

  // Refuses new requests from now on; those accepted are finished.
  void Drain() { draining_ = true; }
  bool idle() const { return requests_.empty() && ending_.empty(); }

  WorkerStatus Status() const;
  const DecodeWorkerCounters& counters() const { return counters_; }
  const BlockManager& blocks() const { return blocks_; }
  int64_t preemptions() const { return scheduler_.preemptions(); }
  int64_t links_fenced() const { return links_.retired(); }

  // Called with the timing of each request at its first token, with each step's time, and when the
  // blocks of a cancelled hand-off are free; for metrics.
  struct Observer {
    virtual ~Observer() = default;
    virtual void OnFirstToken(const GenerateEvent::Timing& timing,
                              const std::string& length_class) = 0;
    virtual void OnStep(int64_t rows, int64_t step_us) = 0;
    virtual void OnCancelledFree(int64_t since_cancel_us) = 0;
  };
  void set_observer(Observer* observer) { observer_ = observer; }

 private:
  using HandOffId = uint64_t;
  struct Request {
    SequenceId id = 0;
    GenerateRequest message;
    OnEvent on_event;
    OnDone done;
    HandOffId hand_off_id = 0;
    std::unique_ptr<HandOff> hand_off;    // while it fills
    std::optional<HandOffReport> report;  // of the hand-off that filled it first
    bool first_token_sent = false;
    int64_t received_us = 0;
    int64_t admitted_us = 0;
    int64_t fill_started_us = 0;
    int64_t filled_us = 0;
    int64_t first_step_us = 0;
    int64_t cached_tokens = 0;
    bool local = false;
    Loop::TimerId deadline_timer = 0;
  };
  // A hand-off whose request is gone or served: it still quiesces, or waits for its stream to end.
  struct Ending {
    std::unique_ptr<HandOff> hand_off;
    std::vector<BlockId> blocks;  // released when it is quiet
    int64_t cancelled_us = 0;     // 0: not cancelled
  };
  // What a step under way computes.
  struct StepWork {
    int64_t rows = 0;            // running sequences, and
    int64_t context_tokens = 0;  // before them, in all
    int64_t chunk_tokens = 0;    // of a prompt that is computed here
    int64_t chunk_position = 0;
  };
  class Call;
  struct Guard;

  Request* Find(SequenceId id);
  void Cancel(SequenceId id);
  void Fail(SequenceId id, const absl::Status& status);
  void Forget(SequenceId id);
  void AdmitWaiting();
  void Fill(const DecodeScheduler::Admission& admission);
  void StartHandOff(Request& request, const DecodeScheduler::Admission& admission);
  void OnHandOffDone(SequenceId id, const absl::Status& status);
  void OnHandOffQuiet(HandOffId id);
  void CountHandOff(const HandOffReport& report, int attempts_failed);
  void FillLocally(Request& request);
  void Later();
  void MaybeStep();
  void OnStepDone(const StepResult& result);
  void ObserveCost(double compute_us);
  void Emit(const DecodeScheduler::Output& output);
  GenerateEvent::Timing TimingOf(const Request& request) const;

  const DecodeWorkerOptions options_;
  Loop* const loop_;
  Executor* const executor_;
  BlockManager blocks_;
  CostModel cost_;
  DecodeScheduler scheduler_;
  LinkPool links_;
  uint32_t next_transfer_id_ = 1;
  HandOffContext hand_off_context_;
  std::map<SequenceId, std::unique_ptr<Request>> requests_;
  std::map<HandOffId, Ending> ending_;
  DecodeWorkerCounters counters_;
  Observer* observer_ = nullptr;
  SequenceId next_id_ = 1;
  HandOffId next_hand_off_id_ = 1;
  bool stepping_ = false;
  int64_t step_started_us_ = 0;
  StepWork step_work_;
  bool decode_told_ = false;  // a step without a chunk has been measured
  bool draining_ = false;
  std::shared_ptr<Guard> guard_;  // tells late tasks that the worker is gone
};

}  // namespace longhaul
