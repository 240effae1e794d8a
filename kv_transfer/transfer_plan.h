// TransferPlan: how the KV of a prompt is cut for the wire. Pure arithmetic, the same on both ends.
//
// A transfer covers positions [first_position, end_position) in chunks of `chunk_tokens`; its
// messages are (chunk, layer, part). The parts are the ranks of the receiver: each message is for
// the pool of one of them. It holds the layer's slabs, cut to the rank's heads, of the chunk's
// blocks in the order of positions. The two ends may hold the blocks in different places, and cut
// the heads into pools in different ways: their pieces differ, the bytes do not. What is neighbour
// to each other in a pool is one piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/model/kv_layout.h"
#include "common/model/sharded_kv_pool.h"
#include "kv_transfer/transport.h"

namespace longhaul {

// A run of bytes in the KV pool of a rank.
struct PoolRange {
  int rank = 0;
  int64_t offset = 0;
  int64_t bytes = 0;
  friend bool operator==(const PoolRange&, const PoolRange&) = default;
};

class TransferPlan {
 public:
  // `layout` is of the whole model; `parts` fits it (CheckKvParts). first_position and chunk_tokens
  // are multiples of layout.block_tokens; end_position > first_position.
  TransferPlan(const KvLayout& layout, int parts, int64_t first_position, int64_t end_position,
               int64_t chunk_tokens);

  int chunks() const { return chunks_; }
  int layers() const { return layout_.layers; }
  int parts() const { return parts_; }
  // The messages of a chunk, and the place of one among them.
  int messages() const { return layout_.layers * parts_; }
  int Message(int layer, int part) const { return layer * parts_ + part; }
  ShardRange HeadsOf(int part) const { return KvHeadsOf(layout_.kv_heads, {part, parts_}); }
  int64_t ChunkBegin(int chunk) const { return first_position_ + chunk * chunk_tokens_; }
  int64_t ChunkEnd(int chunk) const;
  // Which of a sequence's blocks the chunk fills: [BlockBegin, BlockEnd).
  int64_t BlockBegin(int chunk) const { return ChunkBegin(chunk) / layout_.block_tokens; }
  int64_t BlockEnd(int chunk) const { return layout_.BlocksFor(ChunkEnd(chunk)); }
  // The same for each part.
  int64_t MessageBytes(int chunk) const {
    return (BlockEnd(chunk) - BlockBegin(chunk)) * HeadsOf(0).count * 2 * layout_.head_bytes();
  }
  // Chunks that end at or before `position`: what may be sent once so much is computed.
  int ChunksBefore(int64_t position) const;

 private:
  KvLayout layout_;
  int parts_;
  int64_t first_position_;
  int64_t end_position_;
  int64_t chunk_tokens_;
  int chunks_;
};

// The bytes of `heads` of `blocks` in one layer, from the first rank that has a head: what a sender
// puts into a message.
std::vector<PoolRange> HeadRanges(const ShardedKvPool& pool, int layer, ShardRange heads,
                                  absl::Span<const BlockId> blocks);
// The bytes of `blocks` in one layer of a rank's pool: where a receiver has its part.
std::vector<PoolRange> RankRanges(const ShardedKvPool& pool, int layer, int rank,
                                  absl::Span<const BlockId> blocks);

// (transfer, chunk, message of the chunk) as one tag; the receiver never reuses a transfer id
// within its incarnation.
inline constexpr int kTransferChunksMax = 1 << 20;
inline constexpr int kTransferMessagesMax = 1 << 12;
TransferTag MakeTransferTag(uint32_t transfer_id, int chunk, int message);

// Whether a receiver may have so many ranks. Error: InvalidArgument with the numbers.
absl::Status CheckKvParts(const KvLayout& layout, int64_t parts);

// A message's digest is folded over those of its units in order, a chunk's over its messages in
// order, so that both are the same however blocks and heads lie in memory, and a swapped, stale or
// missing unit changes them. A unit is KvLayout::head_bytes long; pieces are whole units.
std::vector<const std::byte*> UnitsOf(absl::Span<const SendPiece> pieces, int64_t unit_bytes);
uint64_t MessageDigest(absl::Span<const uint64_t> unit_digests);
uint64_t ChunkDigest(absl::Span<const uint64_t> message_digests);

}  // namespace longhaul
