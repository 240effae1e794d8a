#include "kv_transfer/transfer_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/hash.h"

namespace longhaul {

TransferPlan::TransferPlan(const KvLayout& layout, int64_t first_position, int64_t end_position,
                           int64_t chunk_tokens)
    : layout_(layout),
      first_position_(first_position),
      end_position_(end_position),
      chunk_tokens_(chunk_tokens),
      chunks_(static_cast<int>((end_position - first_position + chunk_tokens - 1) / chunk_tokens)) {
  LH_CHECK(chunk_tokens > 0 && chunk_tokens % layout.block_tokens == 0 &&
               first_position % layout.block_tokens == 0 && first_position < end_position &&
               chunks_ <= kTransferChunksMax && layout.layers <= kTransferLayersMax,
           absl::StrCat("bad transfer plan: [", first_position, ", ", end_position, ") by ",
                        chunk_tokens));
}

int64_t TransferPlan::ChunkEnd(int chunk) const {
  return std::min(first_position_ + (chunk + 1) * chunk_tokens_, end_position_);
}

int TransferPlan::ChunksBefore(int64_t position) const {
  if (position >= end_position_) return chunks_;
  if (position <= first_position_) return 0;
  return static_cast<int>((position - first_position_) / chunk_tokens_);
}

std::vector<PoolRange> LayerRanges(const KvLayout& layout, int64_t pool_blocks, int layer,
                                   absl::Span<const BlockId> blocks) {
  std::vector<PoolRange> ranges;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i > 0 && blocks[i] == blocks[i - 1] + 1) {
      ranges.back().bytes += layout.slab_bytes();
    } else {
      ranges.push_back({layout.SlabOffset(pool_blocks, layer, blocks[i]), layout.slab_bytes()});
    }
  }
  return ranges;
}

TransferTag MakeTransferTag(uint32_t transfer_id, int chunk, int layer) {
  return uint64_t{transfer_id} << 32 | static_cast<uint64_t>(chunk) << 12 |
         static_cast<uint64_t>(layer);
}

std::vector<const std::byte*> SlabsOf(absl::Span<const SendPiece> pieces, int64_t slab_bytes) {
  std::vector<const std::byte*> slabs;
  for (const SendPiece& piece : pieces) {
    for (int64_t at = 0; at < piece.bytes; at += slab_bytes) slabs.push_back(piece.data + at);
  }
  return slabs;
}

uint64_t MessageDigest(absl::Span<const uint64_t> slab_digests) {
  return Hash64Of(slab_digests.data(), slab_digests.size() * sizeof(uint64_t));
}

uint64_t ChunkDigest(absl::Span<const uint64_t> layer_digests) {
  return Hash64Of(layer_digests.data(), layer_digests.size() * sizeof(uint64_t));
}

}  // namespace longhaul
