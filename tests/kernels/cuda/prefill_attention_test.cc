// Prefill attention on the GPU against float64, over shapes, ragged lengths and block orders.
#include "kernels/cuda/prefill_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "common/model/half.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/kernels/cuda/device_array.h"

namespace longhaul {
namespace {

using ::testing::ElementsAre;
using ::testing::Field;

struct Shape {
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 128;
  int block_tokens = 64;
};

// One sequence's chunk: `tokens` rows from `position` on.
struct Chunk {
  int64_t position = 0;
  int64_t tokens = 0;
};

// Sequences with random queries, keys and values; blocks in random order, everything that no
// sequence owns is NaN.
class World {
 public:
  World(const Shape& shape, const std::vector<int64_t>& lengths, uint64_t seed)
      : shape_(shape), lengths_(lengths), random_(seed) {
    KvLayout& layout = pool_.layout;
    layout = {.layers = 2,
              .kv_heads = shape.kv_heads,
              .head_dim = shape.head_dim,
              .block_tokens = shape.block_tokens};
    for (const int64_t length : lengths) pool_.blocks += layout.BlocksFor(length);
    pool_.blocks += 3;
    std::vector<BlockId> order(pool_.blocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    std::vector<uint16_t> cache(layout.layers * pool_.blocks * layout.slab_elements(), 0xFFFF);
    std::normal_distribution<float> normal;
    size_t next = 0;
    for (const int64_t length : lengths) {
      blocks_.emplace_back(order.begin() + next, order.begin() + next + layout.BlocksFor(length));
      next += layout.BlocksFor(length);
      for (int64_t position = 0; position < length; ++position) {
        for (int head = 0; head < 2 * shape.kv_heads; ++head) {
          uint16_t* to = cache.data() + CacheIndex(blocks_.size() - 1, position, head);
          for (int i = 0; i < shape.head_dim; ++i) to[i] = BF16FromF32(normal(random_));
        }
      }
      std::vector<uint16_t>& queries = queries_.emplace_back(length * width());
      for (uint16_t& value : queries) value = BF16FromF32(normal(random_));
    }
    cache_ = cache;
    device_cache_ = std::make_unique<DeviceArray<uint16_t>>(cache);
    pool_.data = reinterpret_cast<std::byte*>(device_cache_->data());
  }

  int64_t width() const { return int64_t{shape_.heads + 2 * shape_.kv_heads} * shape_.head_dim; }
  int64_t out_width() const { return int64_t{shape_.heads} * shape_.head_dim; }

  // Runs the chunks, one a sequence, as one batch; returns the rows' outputs [rows, out_width].
  std::vector<uint16_t> Run(const std::vector<Chunk>& chunks) {
    Batch batch;
    std::vector<uint16_t> qkv;
    std::vector<int32_t> tables;
    std::vector<int32_t> block_tables;
    int64_t rows = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      batch.sequences.push_back({.phase = Phase::kPrefill,
                                 .row = rows,
                                 .tokens = chunks[i].tokens,
                                 .position = chunks[i].position,
                                 .blocks = blocks_[i]});
      const uint16_t* from = queries_[i].data() + chunks[i].position * width();
      qkv.insert(qkv.end(), from, from + chunks[i].tokens * width());
      tables.push_back(static_cast<int32_t>(block_tables.size()));
      block_tables.insert(block_tables.end(), blocks_[i].begin(), blocks_[i].end());
      rows += chunks[i].tokens;
    }
    const PrefillAttentionPlan plan = PlanPrefillAttention(batch, tables);
    const DeviceArray<uint16_t> device_qkv(qkv);
    DeviceArray<uint16_t> out(rows * out_width());
    const DeviceArray<PrefillAttentionItem> device_items(plan.items);
    const DeviceArray<int32_t> device_tables(block_tables);
    PrefillAttentionCall call;
    call.qkv = device_qkv.data();
    call.rows = rows;
    call.width = width();
    call.heads = shape_.heads;
    call.pool = pool_;
    call.layer = 1;
    call.keys = plan.keys;
    call.out = out.data();
    call.items = device_items.data();
    call.item_count = static_cast<int32_t>(plan.items.size());
    call.block_tables = device_tables.data();
    LaunchPrefillAttention(call, nullptr);
    CudaCheck(cudaDeviceSynchronize(), "prefill attention");
    return out.Read();
  }

  // The output of one row and head in float64.
  std::vector<double> Expected(int sequence, int64_t position, int head) const {
    const int dim = shape_.head_dim;
    const int kv_head = head / (shape_.heads / shape_.kv_heads);
    const uint16_t* query = queries_[sequence].data() + position * width() + head * dim;
    std::vector<double> scores(position + 1);
    for (int64_t key = 0; key <= position; ++key) {
      const uint16_t* k = cache_.data() + CacheIndex(sequence, key, kv_head);
      for (int i = 0; i < dim; ++i)
        scores[key] += double{F32FromBF16(query[i])} * F32FromBF16(k[i]);
      scores[key] /= std::sqrt(dim);
    }
    const double high = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    std::vector<double> out(dim);
    for (int64_t key = 0; key <= position; ++key) {
      const double weight = std::exp(scores[key] - high);
      const uint16_t* v = cache_.data() + CacheIndex(sequence, key, shape_.kv_heads + kv_head);
      for (int i = 0; i < dim; ++i) out[i] += weight * F32FromBF16(v[i]);
      total += weight;
    }
    for (double& value : out) value /= total;
    return out;
  }

  // ||out - expected|| / ||expected|| over some rows of each chunk, its first and last among them.
  double Error(const std::vector<Chunk>& chunks, const std::vector<uint16_t>& out) {
    double difference = 0;
    double norm = 0;
    int64_t first_row = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      std::vector<int64_t> rows = {0, chunks[i].tokens - 1};
      for (int n = 0; n < 12; ++n) rows.push_back(random_() % chunks[i].tokens);
      for (const int64_t row : rows) {
        const int head = static_cast<int>(random_() % shape_.heads);
        const std::vector<double> expected =
            Expected(static_cast<int>(i), chunks[i].position + row, head);
        const uint16_t* got = out.data() + (first_row + row) * out_width() + head * shape_.head_dim;
        for (int d = 0; d < shape_.head_dim; ++d) {
          const double off = F32FromBF16(got[d]) - expected[d];
          difference += off * off;
          norm += expected[d] * expected[d];
        }
      }
      first_row += chunks[i].tokens;
    }
    return std::sqrt(difference / norm);
  }

 private:
  int64_t CacheIndex(int sequence, int64_t position, int head) const {
    const KvLayout& layout = pool_.layout;
    const BlockId block = blocks_[sequence][position / layout.block_tokens];
    return pool_.layout.SlabOffset(pool_.blocks, 1, block) / 2 +
           (int64_t{head} * layout.block_tokens + position % layout.block_tokens) * layout.head_dim;
  }

  const Shape shape_;
  const std::vector<int64_t> lengths_;
  std::mt19937_64 random_;
  KvPool pool_;
  std::vector<std::vector<BlockId>> blocks_;
  std::vector<std::vector<uint16_t>> queries_;  // of each sequence [length, width]
  std::vector<uint16_t> cache_;
  std::unique_ptr<DeviceArray<uint16_t>> device_cache_;
};

// bf16 weights and outputs: each rounds by at most 2^-9 relative, most of it averages out.
constexpr double kTolerance = 5e-3;

class PrefillAttentionTest : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDevices() == 0) GTEST_SKIP() << "no CUDA device";
  }
  void Check(const Shape& shape, const std::vector<Chunk>& chunks, uint64_t seed) {
    std::vector<int64_t> lengths;
    for (const Chunk& chunk : chunks) lengths.push_back(chunk.position + chunk.tokens);
    World world(shape, lengths, seed);
    const double error = world.Error(chunks, world.Run(chunks));
    EXPECT_LT(error, kTolerance) << shape.heads << "/" << shape.kv_heads << " heads of "
                                 << shape.head_dim << ", blocks of " << shape.block_tokens
                                 << ", seed " << seed;
  }
};

TEST_F(PrefillAttentionTest, OneTile) {
  Check({.heads = 1, .kv_heads = 1}, {{0, 128}}, 1);
  Check({.heads = 1, .kv_heads = 1, .head_dim = 64}, {{0, 128}}, 2);
}

TEST_F(PrefillAttentionTest, RaggedLengths) {
  for (const int dim : {64, 128}) {
    Check({.head_dim = dim},
          {{0, 1}, {0, 2}, {0, 63}, {0, 64}, {0, 65}, {0, 127}, {0, 129}, {0, 300}, {0, 1025}}, 3);
  }
}

TEST_F(PrefillAttentionTest, ChunksOfLongerSequences) {
  for (const int dim : {64, 128}) {
    Check({.head_dim = dim},
          {{1, 1}, {127, 1}, {128, 64}, {129, 300}, {1000, 1}, {1000, 333}, {4095, 130}}, 4);
  }
}

TEST_F(PrefillAttentionTest, EveryGroupAndBlockSize) {
  for (int group = 1; group <= 8; ++group) {
    for (const int block_tokens : {16, 32, 48, 64, 128, 256}) {
      Check({.heads = 3 * group,
             .kv_heads = 3,
             .head_dim = group % 2 == 0 ? 64 : 128,
             .block_tokens = block_tokens},
            {{0, 200}, {333, 77}}, 100 * group + block_tokens);
    }
  }
}

// Long enough that the heads are passed over in sections: two and one, then one at a time.
TEST_F(PrefillAttentionTest, LongContext) {
  Check({.heads = 6, .kv_heads = 3}, {{30000, 200}}, 5);
  Check({.heads = 6, .kv_heads = 3}, {{70000, 130}}, 6);
}

TEST_F(PrefillAttentionTest, ARowHasTheSameBitsHoweverThePromptIsCut) {
  for (const int dim : {64, 128}) {
    World world({.head_dim = dim}, {900}, 6);
    const std::vector<uint16_t> whole = world.Run({{0, 900}});
    std::vector<uint16_t> cut;
    int64_t position = 0;
    for (const int64_t tokens : {1, 17, 110, 300, 129, 343}) {
      const std::vector<uint16_t> part = world.Run({{position, tokens}});
      cut.insert(cut.end(), part.begin(), part.end());
      position += tokens;
    }
    EXPECT_EQ(whole, cut);
  }
}

TEST_F(PrefillAttentionTest, ARowHasTheSameBitsWhateverIsBesideIt) {
  World world({}, {500, 700, 40}, 7);
  const std::vector<uint16_t> alone = world.Run({{100, 400}});
  const std::vector<uint16_t> beside = world.Run({{100, 400}, {0, 700}, {39, 1}});
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), beside.begin()));
}

TEST_F(PrefillAttentionTest, RunsAgreeBitForBit) {
  World world({}, {2000, 100, 1}, 8);
  const std::vector<Chunk> chunks = {{0, 2000}, {50, 50}, {0, 1}};
  const std::vector<uint16_t> first = world.Run(chunks);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(world.Run(chunks), first) << "run " << i;
}

TEST(PrefillAttentionPlanTest, CutsSequencesIntoItemsWithTheLongestFirst) {
  Batch batch;
  batch.sequences = {
      {.phase = Phase::kPrefill, .row = 0, .tokens = 130, .position = 0, .blocks = {}},
      {.phase = Phase::kPrefill, .row = 130, .tokens = 10, .position = 1000, .blocks = {}},
      {.phase = Phase::kDecode, .row = 140, .tokens = 1, .position = 5000, .blocks = {}}};
  using Item = PrefillAttentionItem;
  const auto item = [](int row, int rows, int position, int table) {
    return testing::AllOf(Field(&Item::row, row), Field(&Item::rows, rows),
                          Field(&Item::position, position), Field(&Item::table, table));
  };
  const PrefillAttentionPlan plan = PlanPrefillAttention(batch, {0, 3, 20});
  EXPECT_EQ(plan.keys, 130 + 1010);
  EXPECT_THAT(plan.items,
              ElementsAre(item(130, 10, 1000, 3), item(128, 2, 128, 0), item(0, 128, 0, 0)));
}

}  // namespace
}  // namespace longhaul
