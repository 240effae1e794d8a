// TransferPlan: how the KV of a prompt is cut for the wire. Pure arithmetic, the same on both ends.
//
// A transfer covers positions [first_position, end_position) in chunks of `chunk_tokens`; its
// messages are (chunk, layer). A message is the layer's slabs of the chunk's blocks in the order of
// positions; blocks that are neighbours in the pool are merged into one piece. The two ends may
// hold the blocks in different places: their pieces differ, the bytes do not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/model/kv_layout.h"
#include "kv_transfer/transport.h"

namespace longhaul {

// A run of bytes in a KV pool.
struct PoolRange {
  int64_t offset = 0;
  int64_t bytes = 0;
  friend bool operator==(const PoolRange&, const PoolRange&) = default;
};

class TransferPlan {
 public:
  // first_position and chunk_tokens are multiples of layout.block_tokens; end_position >
  // first_position.
  TransferPlan(const KvLayout& layout, int64_t first_position, int64_t end_position,
               int64_t chunk_tokens);

  int chunks() const { return chunks_; }
  int layers() const { return layout_.layers; }
  int64_t ChunkBegin(int chunk) const { return first_position_ + chunk * chunk_tokens_; }
  int64_t ChunkEnd(int chunk) const;
  // Which of a sequence's blocks the chunk fills: [BlockBegin, BlockEnd).
  int64_t BlockBegin(int chunk) const { return ChunkBegin(chunk) / layout_.block_tokens; }
  int64_t BlockEnd(int chunk) const { return layout_.BlocksFor(ChunkEnd(chunk)); }
  int64_t MessageBytes(int chunk) const {
    return (BlockEnd(chunk) - BlockBegin(chunk)) * layout_.slab_bytes();
  }
  // Chunks that end at or before `position`: what may be sent once so much is computed.
  int ChunksBefore(int64_t position) const;

 private:
  KvLayout layout_;
  int64_t first_position_;
  int64_t end_position_;
  int64_t chunk_tokens_;
  int chunks_;
};

// The pool bytes of `blocks` in one layer, neighbours merged, in order.
std::vector<PoolRange> LayerRanges(const KvLayout& layout, int64_t pool_blocks, int layer,
                                   absl::Span<const BlockId> blocks);

// (transfer, chunk, layer) as one tag; the receiver never reuses a transfer id within its
// incarnation.
inline constexpr int kTransferChunksMax = 1 << 20;
inline constexpr int kTransferLayersMax = 1 << 12;
TransferTag MakeTransferTag(uint32_t transfer_id, int chunk, int layer);

// A message's digest is folded over those of its slabs in order, a chunk's over its layers in
// order, so that both are the same however blocks lie in memory, and a swapped, stale or missing
// slab changes them.
std::vector<const std::byte*> SlabsOf(absl::Span<const SendPiece> pieces, int64_t slab_bytes);
uint64_t MessageDigest(absl::Span<const uint64_t> slab_digests);
uint64_t ChunkDigest(absl::Span<const uint64_t> layer_digests);

}  // namespace longhaul
