#include "kv_transfer/transfer_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/hash.h"

namespace longhaul {

TransferPlan::TransferPlan(const KvLayout& layout, int parts, int64_t first_position,
                           int64_t end_position, int64_t chunk_tokens)
    : layout_(layout),
      parts_(parts),
      first_position_(first_position),
      end_position_(end_position),
      chunk_tokens_(chunk_tokens),
      chunks_(static_cast<int>((end_position - first_position + chunk_tokens - 1) / chunk_tokens)) {
  LH_CHECK(chunk_tokens > 0 && chunk_tokens % layout.block_tokens == 0 &&
               first_position % layout.block_tokens == 0 && first_position < end_position &&
               chunks_ <= kTransferChunksMax && CheckKvParts(layout, parts).ok(),
           absl::StrCat("bad transfer plan: [", first_position, ", ", end_position, ") by ",
                        chunk_tokens, " for ", parts, " ranks"));
}

int64_t TransferPlan::ChunkEnd(int chunk) const {
  return std::min(first_position_ + (chunk + 1) * chunk_tokens_, end_position_);
}

int TransferPlan::ChunksBefore(int64_t position) const {
  if (position >= end_position_) return chunks_;
  if (position <= first_position_) return 0;
  return static_cast<int>((position - first_position_) / chunk_tokens_);
}

namespace {

// Appends a run, or lengthens the last one where they are neighbours.
void Append(PoolRange range, std::vector<PoolRange>& ranges) {
  if (!ranges.empty() && ranges.back().rank == range.rank &&
      ranges.back().offset + ranges.back().bytes == range.offset) {
    ranges.back().bytes += range.bytes;
  } else {
    ranges.push_back(range);
  }
}

}  // namespace

std::vector<PoolRange> HeadRanges(const ShardedKvPool& pool, int layer, ShardRange heads,
                                  absl::Span<const BlockId> blocks) {
  std::vector<PoolRange> ranges;
  const int64_t head_bytes = pool.layout.head_bytes();
  for (const BlockId block : blocks) {
    for (const bool values : {false, true}) {
      for (int64_t head = heads.first; head < heads.end();) {
        const int rank = pool.RankOf(head);
        const ShardRange here = pool.HeadsOf(rank);
        const int64_t end = std::min(heads.end(), here.end());
        const int64_t in_slab = (values ? here.count : 0) + head - here.first;
        const int64_t slab = pool.Rank(rank).layout.SlabOffset(pool.blocks, layer, block);
        Append({rank, slab + in_slab * head_bytes, (end - head) * head_bytes}, ranges);
        head = end;
      }
    }
  }
  return ranges;
}

std::vector<PoolRange> RankRanges(const ShardedKvPool& pool, int layer, int rank,
                                  absl::Span<const BlockId> blocks) {
  std::vector<PoolRange> ranges;
  const KvLayout layout = pool.Rank(rank).layout;
  for (const BlockId block : blocks) {
    Append({rank, layout.SlabOffset(pool.blocks, layer, block), layout.slab_bytes()}, ranges);
  }
  return ranges;
}

TransferTag MakeTransferTag(uint32_t transfer_id, int chunk, int message) {
  return uint64_t{transfer_id} << 32 | static_cast<uint64_t>(chunk) << 12 |
         static_cast<uint64_t>(message);
}

absl::Status CheckKvParts(const KvLayout& layout, int64_t parts) {
  if (parts < 1 || parts > kRanksMax || layout.layers * parts > kTransferMessagesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV of ", layout.layers, " layers for ", parts, " ranks; valid are 1 to ",
                     std::min(kRanksMax, kTransferMessagesMax / layout.layers)));
  }
  return CheckKvWidth(layout.kv_heads, static_cast<int>(parts));
}

std::vector<const std::byte*> UnitsOf(absl::Span<const SendPiece> pieces, int64_t unit_bytes) {
  std::vector<const std::byte*> units;
  for (const SendPiece& piece : pieces) {
    for (int64_t at = 0; at < piece.bytes; at += unit_bytes) units.push_back(piece.data + at);
  }
  return units;
}

uint64_t MessageDigest(absl::Span<const uint64_t> unit_digests) {
  return Hash64Of(unit_digests.data(), unit_digests.size() * sizeof(uint64_t));
}

uint64_t ChunkDigest(absl::Span<const uint64_t> message_digests) {
  return Hash64Of(message_digests.data(), message_digests.size() * sizeof(uint64_t));
}

}  // namespace longhaul
