#include "kv_transfer/kv_receiver.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/mutant.h"

namespace longhaul {

KvReceiver::KvReceiver(TransferEngine* engine, LinkId link, const ShardedKvPool& pool,
                       const TransferPlan& plan, uint32_t transfer_id, Callbacks callbacks)
    : engine_(engine),
      link_(link),
      pool_(pool),
      plan_(plan),
      transfer_id_(transfer_id),
      callbacks_(std::move(callbacks)),
      chunks_(plan.chunks()) {
  for (Chunk& chunk : chunks_) chunk.message_digests.resize(plan.messages());
}

void KvReceiver::PostNext(absl::Span<const BlockId> blocks) {
  LH_CHECK(chunks_posted_ < plan_.chunks() && !cancelled_, "no chunk left to post");
  const int chunk = chunks_posted_++;
  for (int layer = 0; layer < plan_.layers(); ++layer) {
    for (int part = 0; part < plan_.parts(); ++part) {
      std::vector<ReceivePiece> pieces;
      for (const PoolRange& range : RankRanges(pool_, layer, part, blocks)) {
        pieces.push_back({pool_.ranks[range.rank] + range.offset, range.bytes});
      }
      const int message = plan_.Message(layer, part);
      const TransferTag tag = MakeTransferTag(transfer_id_, chunk, message);
      outstanding_.insert(tag);
      engine_->Receive(link_, tag, std::move(pieces), pool_.layout.head_bytes(),
                       [this, chunk, message](absl::Status status, uint64_t digest) {
                         OnReceived(chunk, message, std::move(status), digest);
                       });
    }
  }
}

void KvReceiver::OnReceived(int chunk, int message, absl::Status status, uint64_t digest) {
  outstanding_.erase(MakeTransferTag(transfer_id_, chunk, message));
  if (status.ok()) {
    bytes_received_ += plan_.MessageBytes(chunk);
    chunks_[chunk].message_digests[message] = digest;
    ++chunks_[chunk].messages_received;
  }
  if (cancelled_) {
    if (quiesced()) callbacks_.quiesced();
  } else if (!status.ok()) {
    Fail(std::move(status));
  } else {
    CheckChunk(chunk);
  }
}

void KvReceiver::OnDigest(int chunk, uint64_t digest) {
  if (cancelled_ || chunk < 0 || chunk >= chunks_posted_ || chunks_[chunk].digest_known) return;
  chunks_[chunk].digest_known = true;
  ++chunks_announced_;
  chunks_[chunk].digest = digest;
  CheckChunk(chunk);
}

void KvReceiver::CheckChunk(int index) {
  Chunk& chunk = chunks_[index];
  if (failed_ || chunk.whole || !chunk.digest_known || chunk.messages_received < plan_.messages())
    return;
  const uint64_t digest = ChunkDigest(chunk.message_digests);
  if (digest != chunk.digest && !MutantIs(Mutant::kDigestIgnored)) {
    Fail(absl::DataLossError(absl::StrCat("chunk ", index, " arrived with digest ",
                                          absl::Hex(digest), ", sent was ",
                                          absl::Hex(chunk.digest))));
    return;
  }
  chunk.whole = true;
  ++chunks_arrived_;
  while (chunks_whole_ < plan_.chunks() && chunks_[chunks_whole_].whole) ++chunks_whole_;
  callbacks_.chunk_whole(index);
}

void KvReceiver::Fail(absl::Status status) {
  if (failed_) return;
  failed_ = true;
  callbacks_.failed(std::move(status));
}

void KvReceiver::Cancel() {
  if (cancelled_) return;
  cancelled_ = true;
  for (const TransferTag tag : outstanding_) engine_->Cancel(link_, tag);
}

}  // namespace longhaul
