// KvSender: the prefill side of one transfer. Sends the messages of a (chunk, layer) as soon as the
// layer of the whole chunk is computed and the decode side has granted the chunk. Lives on the
// worker's Loop.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "common/model/sharded_kv_pool.h"
#include "kv_transfer/transfer_engine.h"
#include "kv_transfer/transfer_plan.h"

namespace longhaul {

class KvSender {
 public:
  struct Callbacks {
    // Every message of the chunk is on its way; the digest is what the receiver must find.
    absl::AnyInvocable<void(int chunk, uint64_t digest)> chunk_sent;
    // Every operation has ended: the blocks may be released. OK when every message was taken by the
    // wire, else the first failure. The last callback.
    absl::AnyInvocable<void(absl::Status)> quiesced;
  };

  // `blocks` covers all positions up to the plan's end and stays owned by the caller until
  // `quiesced`; so does this object. No callback comes from inside a call.
  KvSender(TransferEngine* engine, LinkId link, const ShardedKvPool& pool, const TransferPlan& plan,
           uint32_t transfer_id, std::vector<BlockId> blocks, Callbacks callbacks);

  // Receives are posted for all chunks below `chunks`. Smaller or repeated grants change nothing.
  void Grant(int chunks);

  // KV of every position below `position_end` is stored in `layer`.
  void LayerReady(int layer, int64_t position_end);

  // Sends nothing more and asks the wire to end what it has begun. `quiesced` follows, unless
  // quiesced() holds already.
  void Cancel();

  // No operation is under way and none will be.
  bool quiesced() const { return outstanding_.empty() && (cancelled_ || all_done()); }

  int64_t bytes_sent() const { return bytes_sent_; }

 private:
  struct Chunk {
    std::vector<uint64_t> message_digests;
    int posted = 0;
  };

  void SendReady(int layer);
  void SendMessage(int chunk, int layer, int part);
  void OnDone(TransferTag tag, absl::Status status);
  bool all_done() const { return messages_done_ == int64_t{plan_.chunks()} * plan_.messages(); }

  TransferEngine* const engine_;
  const LinkId link_;
  const ShardedKvPool pool_;
  const TransferPlan plan_;
  const uint32_t transfer_id_;
  const std::vector<BlockId> blocks_;
  Callbacks callbacks_;
  int granted_ = 0;
  std::vector<int64_t> ready_;   // [layers]: positions stored
  std::vector<int> next_chunk_;  // [layers]: first chunk not sent
  std::vector<Chunk> chunks_;
  int64_t messages_done_ = 0;
  absl::flat_hash_set<TransferTag> outstanding_;
  int64_t bytes_sent_ = 0;
  bool cancelled_ = false;
  absl::Status failure_;
};

}  // namespace longhaul
