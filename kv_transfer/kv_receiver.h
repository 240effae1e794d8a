// KvReceiver: the decode side of one transfer attempt. Posts receives into blocks that the caller
// owns and says when a chunk is whole. Lives on the worker's Loop.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/model/sharded_kv_pool.h"
#include "kv_transfer/transfer_engine.h"
#include "kv_transfer/transfer_plan.h"

namespace longhaul {

class KvReceiver {
 public:
  struct Callbacks {
    // All bytes of the chunk arrived and their digest is the sender's.
    absl::AnyInvocable<void(int chunk)> chunk_whole;
    // The attempt cannot go on: a receive failed (its status) or a digest differs (DataLoss). At
    // most once.
    absl::AnyInvocable<void(absl::Status)> failed;
    // After Cancel: every posted receive has ended, its memory may be reused. The last callback.
    absl::AnyInvocable<void()> quiesced;
  };

  // The plan's parts are the pool's ranks. OnDigest may call back from inside. The object outlives
  // its receives: destroy it once quiesced() holds, and never inside a callback.
  KvReceiver(TransferEngine* engine, LinkId link, const ShardedKvPool& pool,
             const TransferPlan& plan, uint32_t transfer_id, Callbacks callbacks);

  const TransferPlan& plan() const { return plan_; }
  uint32_t transfer_id() const { return transfer_id_; }
  LinkId link() const { return link_; }

  // Posts the receives of the next chunk into `blocks`, its blocks in order of positions.
  void PostNext(absl::Span<const BlockId> blocks);
  int chunks_posted() const { return chunks_posted_; }

  // What the sender says the chunk's bytes are. Unknown or repeated chunks change nothing.
  void OnDigest(int chunk, uint64_t digest);

  // Leading chunks that are whole: what a later attempt need not send again.
  int chunks_whole() const { return chunks_whole_; }
  bool complete() const { return chunks_whole_ == plan_.chunks(); }
  // Chunks whose digest is known and whose bytes are not all here.
  int chunks_missing() const { return chunks_announced_ - chunks_arrived_; }

  // Asks the wire to end every posted receive. `quiesced` follows, unless quiesced() holds already.
  void Cancel();
  bool quiesced() const { return outstanding_.empty(); }

  int64_t bytes_received() const { return bytes_received_; }

 private:
  struct Chunk {
    std::vector<uint64_t> message_digests;
    int messages_received = 0;
    bool digest_known = false;
    uint64_t digest = 0;
    bool whole = false;
  };

  void OnReceived(int chunk, int message, absl::Status status, uint64_t digest);
  void CheckChunk(int chunk);
  void Fail(absl::Status status);

  TransferEngine* const engine_;
  const LinkId link_;
  const ShardedKvPool pool_;
  const TransferPlan plan_;
  const uint32_t transfer_id_;
  Callbacks callbacks_;
  std::vector<Chunk> chunks_;
  int chunks_posted_ = 0;
  int chunks_whole_ = 0;      // leading ones
  int chunks_announced_ = 0;  // digest known
  int chunks_arrived_ = 0;    // whole, wherever
  absl::flat_hash_set<TransferTag> outstanding_;
  int64_t bytes_received_ = 0;
  bool cancelled_ = false;
  bool failed_ = false;
};

}  // namespace longhaul
