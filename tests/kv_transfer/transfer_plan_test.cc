#include "kv_transfer/transfer_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "common/model/kv_memory.h"

namespace longhaul {
namespace {

using testing::ElementsAre;

KvLayout Layout() {
  return {.layers = 3, .kv_heads = 2, .head_dim = 8, .block_tokens = 4, .dtype = DType::kBF16};
}

TEST(TransferPlanTest, ChunksCoverTheRangeOnceInWholeBlocks) {
  for (const int64_t first : {0, 4, 40}) {
    for (const int64_t tokens : {1, 3, 4, 7, 8, 9, 100, 101}) {
      for (const int64_t chunk_tokens : {4, 8, 32}) {
        const TransferPlan plan(Layout(), first, first + tokens, chunk_tokens);
        int64_t position = first, block = first / 4;
        for (int chunk = 0; chunk < plan.chunks(); ++chunk) {
          EXPECT_EQ(plan.ChunkBegin(chunk), position);
          EXPECT_EQ(plan.BlockBegin(chunk), block);
          position = plan.ChunkEnd(chunk);
          block = plan.BlockEnd(chunk);
          EXPECT_EQ(plan.ChunksBefore(position), chunk + 1);
          if (position > plan.ChunkBegin(chunk) + 1) {
            EXPECT_EQ(plan.ChunksBefore(position - 1), chunk);
          }
        }
        EXPECT_EQ(position, first + tokens);
        EXPECT_EQ(block, Layout().BlocksFor(first + tokens));
      }
    }
  }
}

TEST(TransferPlanTest, NeighbouringBlocksAreOnePiece) {
  const KvLayout layout = Layout();
  const int64_t slab = layout.slab_bytes();
  const std::vector<BlockId> blocks = {7, 8, 9, 3, 5, 6};
  EXPECT_THAT(LayerRanges(layout, 16, 1, blocks),
              ElementsAre(PoolRange{(16 + 7) * slab, 3 * slab}, PoolRange{(16 + 3) * slab, slab},
                          PoolRange{(16 + 5) * slab, 2 * slab}));
}

TEST(TransferPlanTest, TagsNameEveryMessageApart) {
  std::set<TransferTag> tags;
  for (const uint32_t transfer : {1u, 2u, 0xffffffffu}) {
    for (const int chunk : {0, 1, kTransferChunksMax - 1}) {
      for (const int layer : {0, 1, kTransferLayersMax - 1})
        tags.insert(MakeTransferTag(transfer, chunk, layer));
    }
  }
  EXPECT_EQ(tags.size(), 27u);
}

TEST(TransferPlanTest, DigestsDependOnEverySlabAndItsPlaceButNotOnTheCut) {
  const int64_t slab = Layout().slab_bytes();
  std::vector<std::byte> memory(4 * slab);
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<std::byte>(i * 31 + i / slab);
  const auto piece = [&](int64_t first, int64_t count) {
    return SendPiece{memory.data() + first * slab, count * slab};
  };
  const auto digest = [&](std::vector<SendPiece> pieces) {
    return MessageDigest(HostKvMemory().Digests(SlabsOf(pieces, slab), slab)->Take());
  };
  const uint64_t whole = digest({piece(0, 4)});
  EXPECT_EQ(digest({piece(0, 1), piece(1, 3)}), whole);
  EXPECT_NE(digest({piece(1, 1), piece(0, 1), piece(2, 2)}), whole);
  EXPECT_NE(digest({piece(0, 3)}), whole);
  memory[2 * slab + 5] ^= std::byte{1};
  EXPECT_NE(digest({piece(0, 4)}), whole);
  EXPECT_NE(ChunkDigest({1, 2}), ChunkDigest({2, 1}));
}

}  // namespace
}  // namespace longhaul
