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
        const TransferPlan plan(Layout(), 1, first, first + tokens, chunk_tokens);
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
  const ShardedKvPool pool(layout, 16, {nullptr});
  const auto whole =
      ElementsAre(PoolRange{0, (16 + 7) * slab, 3 * slab}, PoolRange{0, (16 + 3) * slab, slab},
                  PoolRange{0, (16 + 5) * slab, 2 * slab});
  EXPECT_THAT(RankRanges(pool, 1, 0, blocks), whole);
  EXPECT_THAT(HeadRanges(pool, 1, {0, 2}, blocks), whole);
}

// Layer 1 of a block, of four heads, on two ranks; a head's keys are 64 bytes.
TEST(TransferPlanTest, HeadsOfSeveralRanksInOrder) {
  KvLayout layout = Layout();
  layout.kv_heads = 4;
  ASSERT_EQ(layout.head_bytes(), 64);
  const ShardedKvPool pool(layout, 16, {nullptr, nullptr});
  const int64_t slab = (16 + 5) * 2 * 2 * 64;
  EXPECT_THAT(HeadRanges(pool, 1, {0, 4}, {5}),
              ElementsAre(PoolRange{0, slab, 128}, PoolRange{1, slab, 128},
                          PoolRange{0, slab + 128, 128}, PoolRange{1, slab + 128, 128}));
  EXPECT_THAT(HeadRanges(pool, 1, {2, 2}, {5, 6}), ElementsAre(PoolRange{1, slab, 512}));
  EXPECT_THAT(HeadRanges(pool, 1, {3, 1}, {5}),
              ElementsAre(PoolRange{1, slab + 64, 64}, PoolRange{1, slab + 192, 64}));
  EXPECT_THAT(RankRanges(pool, 1, 1, {5, 6}), ElementsAre(PoolRange{1, slab, 512}));
}

// Whatever the widths, what a message is made of and what it is taken into are the same heads.
TEST(TransferPlanTest, BothEndsOfAMessageAgree) {
  for (const int kv_heads : {1, 2, 8}) {
    KvLayout layout = Layout();
    layout.kv_heads = kv_heads;
    for (const int from : {1, 2, 4, 8}) {
      for (const int to : {1, 2, 4, 8}) {
        const ShardedKvPool source(layout, 16, std::vector<std::byte*>(from));
        const ShardedKvPool target(layout, 16, std::vector<std::byte*>(to));
        const TransferPlan plan(layout, to, 0, 12, 12);
        for (int part = 0; part < to; ++part) {
          int64_t sent = 0, taken = 0;
          for (const PoolRange& range : HeadRanges(source, 2, plan.HeadsOf(part), {4, 9, 2})) {
            sent += range.bytes;
          }
          for (const PoolRange& range : RankRanges(target, 2, part, {1, 2, 3})) {
            taken += range.bytes;
          }
          EXPECT_EQ(sent, plan.MessageBytes(0)) << kv_heads << ": " << from << " to " << to;
          EXPECT_EQ(taken, sent) << kv_heads << ": " << from << " to " << to;
        }
      }
    }
  }
}

TEST(TransferPlanTest, ReceiversThatCannotBeAreRefused) {
  KvLayout layout = Layout();
  layout.kv_heads = 6;
  EXPECT_TRUE(CheckKvParts(layout, 3).ok());
  EXPECT_TRUE(CheckKvParts(layout, 12).ok());
  for (const int64_t parts : {-1, 0, 4, 65}) {
    EXPECT_EQ(CheckKvParts(layout, parts).code(), absl::StatusCode::kInvalidArgument) << parts;
  }
  layout.layers = 1024;
  EXPECT_FALSE(CheckKvParts(layout, 6).ok());
}

TEST(TransferPlanTest, TagsNameEveryMessageApart) {
  std::set<TransferTag> tags;
  for (const uint32_t transfer : {1u, 2u, 0xffffffffu}) {
    for (const int chunk : {0, 1, kTransferChunksMax - 1}) {
      for (const int message : {0, 1, kTransferMessagesMax - 1})
        tags.insert(MakeTransferTag(transfer, chunk, message));
    }
  }
  EXPECT_EQ(tags.size(), 27u);
}

TEST(TransferPlanTest, DigestsDependOnEveryUnitAndItsPlaceButNotOnTheCut) {
  const int64_t unit = Layout().head_bytes();
  std::vector<std::byte> memory(4 * unit);
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<std::byte>(i * 31 + i / unit);
  const auto piece = [&](int64_t first, int64_t count) {
    return SendPiece{memory.data() + first * unit, count * unit};
  };
  const auto digest = [&](std::vector<SendPiece> pieces) {
    return MessageDigest(HostKvMemory().Digests(UnitsOf(pieces, unit), unit)->Take());
  };
  const uint64_t whole = digest({piece(0, 4)});
  EXPECT_EQ(digest({piece(0, 1), piece(1, 3)}), whole);
  EXPECT_NE(digest({piece(1, 1), piece(0, 1), piece(2, 2)}), whole);
  EXPECT_NE(digest({piece(0, 3)}), whole);
  memory[2 * unit + 5] ^= std::byte{1};
  EXPECT_NE(digest({piece(0, 4)}), whole);
  EXPECT_NE(ChunkDigest({1, 2}), ChunkDigest({2, 1}));
}

}  // namespace
}  // namespace longhaul
