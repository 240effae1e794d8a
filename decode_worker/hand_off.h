// HandOff: one prompt's KV on its way from prefill workers to this decode worker, over as many
// attempts as it takes.
//
// An attempt gets a link, posts the receives of a window of chunks, opens the stream to a prefill
// worker, and grants a further chunk for each that became whole. When it fails, its receives are
// quiesced first; then the next attempt starts at the first chunk that is not whole, at the next
// worker in order. docs/PROTOCOL.md has the states. Lives on the worker's Loop.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/engine/prefill_client.h"
#include "common/model/sharded_kv_pool.h"
#include "common/runtime/loop.h"
#include "decode_worker/link_pool.h"
#include "kv_transfer/kv_receiver.h"
#include "kv_transfer/transfer_engine.h"

namespace longhaul {

struct HandOffOptions {
  int64_t chunk_tokens = 512;  // transfer unit; a multiple of block_tokens
  int window_chunks = 4;       // granted and not whole at once
  int attempts_max = 4;
  int64_t retry_us = 100'000;    // pause before a worker is asked again
  int64_t quiesce_us = 500'000;  // receives that did not end by then have their link closed
  // Bytes that were announced but do not come: the attempt fails after this long without progress,
  // plus the time that what is missing takes at the slowest rate a link is allowed to have.
  int64_t stall_us = 2'000'000;
  double link_bytes_per_us_min = 10.0;
  // How often both ends of an attempt say that they live. However long a prompt waits or computes
  // there, the attempt goes on; when no word came for so many of these times, it fails.
  int64_t heartbeat_us = 2'000'000;
  int heartbeats_missed_max = 5;
};

// What a hand-off works with; all of it outlives the hand-off.
struct HandOffContext {
  Loop* loop = nullptr;
  TransferEngine* engine = nullptr;
  LinkPool* links = nullptr;
  PrefillClient* prefill = nullptr;
  ShardedKvPool pool;
  std::string name;
  uint64_t incarnation = 0;
  Fingerprint fingerprint;
  uint32_t* next_transfer_id = nullptr;  // of the process: never reused within its incarnation
  HandOffOptions options;
};

// What happened, for the request's timing and the metrics.
struct HandOffReport {
  std::string prefill_name;
  int attempts = 0;
  int digest_mismatches = 0;       // attempts that failed because KV arrived damaged
  int stale_messages = 0;          // that named another attempt, ignored
  int64_t prefill_queue_us = 0;    // of the last attempt
  int64_t prefill_compute_us = 0;  // of the last attempt
  int64_t kv_bytes = 0;            // over all attempts
  int64_t first_byte_us = 0;       // when the first chunk became whole; Loop time
  int64_t last_byte_us = 0;
  int64_t exposed_us = 0;  // last layer computed there to whole prompt here, as far as it is known
  int32_t prefill_cached_tokens = 0;
};

class HandOff {
 public:
  struct Request {
    std::string request_id;
    std::vector<int32_t> tokens;  // whose KV is wanted
    int64_t first_position = 0;   // [0, first_position) is here already; a multiple of block_tokens
    std::vector<std::string> addresses;  // prefill workers in order of preference; not empty
    std::vector<std::string> names;
    uint64_t cache_salt = 0;
  };
  struct Callbacks {
    // Blocks for all positions below `position_end`, in order.
    absl::AnyInvocable<absl::Span<const BlockId>(int64_t position_end)> grow;
    // KV of every position below `position_end` is whole.
    absl::AnyInvocable<void(int64_t position_end)> filled;
    // The whole prompt is here (OK), or every attempt has failed; nothing writes the blocks any
    // more.
    absl::AnyInvocable<void(const absl::Status&)> done;
    // After Cancel: nothing writes the blocks any more. `done` does not come then.
    absl::AnyInvocable<void()> quiesced;
    // After done(OK): the prefill worker's stream has ended too, the object is of no more use.
    absl::AnyInvocable<void()> closed;
  };

  // Must not be destroyed from inside its callbacks, and only when quiesced() holds.
  HandOff(const HandOffContext* context, Request request, Callbacks callbacks);
  ~HandOff();

  void Start();

  // Stops the prefill and ends the receives. `quiesced` follows, unless quiesced() holds already.
  void Cancel();
  bool quiesced() const { return receiver_ == nullptr || receiver_->quiesced(); }

  const HandOffReport& report() const { return report_; }

 private:
  static bool IsCurrent(const HandOff* hand_off, uint32_t transfer_id);
  void StartAttempt();
  void NextAttempt();
  size_t PeerOf(int attempt) const { return (attempt - 1) % request_.addresses.size(); }
  void Open(const LinkPool::PeerLink& link);
  void PostChunk();
  void OnEvent(const PrefillEvent& event);
  void OnStreamDone(const absl::Status& status);
  void OnChunkWhole();
  void FailAttempt(const absl::Status& status);
  void Closed();
  void ArmStall();
  void ArmHeartbeat();
  void Heartbeat();
  void ArmFence();
  void OnQuiesced();
  void Later(void (HandOff::*step)());

  const HandOffContext* const context_;
  Request request_;
  Callbacks callbacks_;
  HandOffReport report_;
  int64_t position_ = 0;                  // KV below is whole
  std::unique_ptr<KvReceiver> receiver_;  // of the current attempt
  std::unique_ptr<PrefillCall> call_;
  absl::Status failure_;  // of the current attempt
  bool failing_ = false;
  bool cancelled_ = false;
  bool complete_ = false;
  Loop::TimerId stall_timer_ = 0;
  Loop::TimerId heartbeat_timer_ = 0;
  int heartbeats_missed_ = 0;
  Loop::TimerId fence_timer_ = 0;
  Loop::TimerId retry_timer_ = 0;
  std::shared_ptr<HandOff*> self_;  // tells late tasks that the object is gone
};

}  // namespace longhaul
