#include "kv_transfer/kv_sender.h"

#include <algorithm>
#include <utility>

#include "absl/types/span.h"

namespace longhaul {

KvSender::KvSender(TransferEngine* engine, LinkId link, const ShardedKvPool& pool,
                   const TransferPlan& plan, uint32_t transfer_id, std::vector<BlockId> blocks,
                   Callbacks callbacks)
    : engine_(engine),
      link_(link),
      pool_(pool),
      plan_(plan),
      transfer_id_(transfer_id),
      blocks_(std::move(blocks)),
      callbacks_(std::move(callbacks)),
      ready_(plan.layers(), 0),
      next_chunk_(plan.layers(), 0),
      chunks_(plan.chunks()) {
  for (Chunk& chunk : chunks_) chunk.message_digests.resize(plan.messages());
}

void KvSender::Grant(int chunks) {
  if (chunks <= granted_) return;
  granted_ = std::min(chunks, plan_.chunks());
  for (int layer = 0; layer < plan_.layers(); ++layer) SendReady(layer);
}

void KvSender::LayerReady(int layer, int64_t position_end) {
  ready_[layer] = std::max(ready_[layer], position_end);
  SendReady(layer);
}

void KvSender::SendReady(int layer) {
  const int end = std::min(granted_, plan_.ChunksBefore(ready_[layer]));
  while (!cancelled_ && next_chunk_[layer] < end) {
    const int chunk = next_chunk_[layer]++;
    for (int part = 0; part < plan_.parts(); ++part) SendMessage(chunk, layer, part);
  }
}

void KvSender::SendMessage(int chunk, int layer, int part) {
  const auto blocks = absl::MakeConstSpan(blocks_).subspan(
      plan_.BlockBegin(chunk), plan_.BlockEnd(chunk) - plan_.BlockBegin(chunk));
  std::vector<SendPiece> pieces;
  for (const PoolRange& range : HeadRanges(pool_, layer, plan_.HeadsOf(part), blocks)) {
    pieces.push_back({pool_.ranks[range.rank] + range.offset, range.bytes});
  }
  bytes_sent_ += plan_.MessageBytes(chunk);
  const int message = plan_.Message(layer, part);
  const TransferTag tag = MakeTransferTag(transfer_id_, chunk, message);
  outstanding_.insert(tag);
  engine_->Send(
      link_, tag, std::move(pieces), pool_.layout.head_bytes(),
      [this, chunk, message](uint64_t digest) {
        chunks_[chunk].message_digests[message] = digest;
        if (++chunks_[chunk].posted == plan_.messages() && !cancelled_) {
          callbacks_.chunk_sent(chunk, ChunkDigest(chunks_[chunk].message_digests));
        }
      },
      [this, tag](absl::Status status) { OnDone(tag, std::move(status)); });
}

void KvSender::OnDone(TransferTag tag, absl::Status status) {
  outstanding_.erase(tag);
  ++messages_done_;
  failure_.Update(status);
  if (!failure_.ok()) Cancel();
  if (quiesced()) callbacks_.quiesced(failure_);
}

void KvSender::Cancel() {
  if (cancelled_) return;
  cancelled_ = true;
  failure_.Update(absl::CancelledError("the transfer was cancelled"));
  for (const TransferTag tag : outstanding_) engine_->Cancel(link_, tag);
}

}  // namespace longhaul
