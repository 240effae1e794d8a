#include "kv_transfer/kv_receiver.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/mutant.h"

namespace longhaul {

KvReceiver::KvReceiver(TransferEngine* engine, LinkId link, const KvPool& pool,
                       const TransferPlan& plan, uint32_t transfer_id, Callbacks callbacks)
    : engine_(engine),
      link_(link),
      pool_(pool),
      plan_(plan),
      transfer_id_(transfer_id),
      callbacks_(std::move(callbacks)),
      chunks_(plan.chunks()) {
  for (Chunk& chunk : chunks_) chunk.layer_digests.resize(plan.layers());
}

void KvReceiver::PostNext(absl::Span<const BlockId> blocks) {
  LH_CHECK(chunks_posted_ < plan_.chunks() && !cancelled_, "no chunk left to post");
  const int chunk = chunks_posted_++;
  for (int layer = 0; layer < plan_.layers(); ++layer) {
    std::vector<ReceivePiece> pieces;
    for (const PoolRange& range : LayerRanges(pool_.layout, pool_.blocks, layer, blocks)) {
      pieces.push_back({pool_.data + range.offset, range.bytes});
    }
    const TransferTag tag = MakeTransferTag(transfer_id_, chunk, layer);
    outstanding_.insert(tag);
    engine_->Receive(link_, tag, std::move(pieces), pool_.layout.slab_bytes(),
                     [this, chunk, layer](absl::Status status, uint64_t digest) {
                       OnReceived(chunk, layer, std::move(status), digest);
                     });
  }
}

void KvReceiver::OnReceived(int chunk, int layer, absl::Status status, uint64_t digest) {
  outstanding_.erase(MakeTransferTag(transfer_id_, chunk, layer));
  if (status.ok()) {
    bytes_received_ += plan_.MessageBytes(chunk);
    chunks_[chunk].layer_digests[layer] = digest;
    ++chunks_[chunk].layers_received;
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
  if (failed_ || chunk.whole || !chunk.digest_known || chunk.layers_received < plan_.layers())
    return;
  const uint64_t digest = ChunkDigest(chunk.layer_digests);
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
