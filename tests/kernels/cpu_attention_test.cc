// Paged attention of every level against float64: ragged lengths, scattered blocks, every group
// size; and bit for bit, that neither chunks nor neighbours matter.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cpu/attention_plan.h"
#include "tests/kernels/random_data.h"

namespace longhaul {
namespace {

struct Shape {
  int kv_heads = 1;
  int group = 1;
  int head_dim = 64;
  int block_tokens = 16;
};

// A pool of random keys and values and sequences over it with scattered blocks. One layer of two.
class World {
 public:
  World(const Shape& shape, std::vector<int64_t> lengths, uint64_t seed) : lengths_(lengths) {
    config_.heads = shape.kv_heads * shape.group;
    config_.kv_heads = shape.kv_heads;
    config_.head_dim = shape.head_dim;
    pool_.layout = {2, shape.kv_heads, shape.head_dim, shape.block_tokens};
    for (const int64_t length : lengths) pool_.blocks += pool_.layout.BlocksFor(length);
    const std::vector<float> kv = RandomFloats(pool_.blocks * pool_.layout.block_bytes() / 2, seed);
    for (const float value : kv) bits_.push_back(BF16FromF32(value));
    pool_.data = reinterpret_cast<std::byte*>(bits_.data());
    std::vector<BlockId> ids(pool_.blocks);
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::mt19937_64(seed));
    for (const int64_t length : lengths) {
      const int64_t count = pool_.layout.BlocksFor(length);
      tables_.emplace_back(ids.end() - count, ids.end());
      ids.resize(ids.size() - count);
      queries_.push_back(RandomFloats(length * q_width(), seed + tables_.size()));
    }
  }

  int64_t q_width() const { return int64_t{config_.heads} * config_.head_dim; }
  int64_t qkv_width() const { return q_width() + int64_t{2} * config_.kv_heads * config_.head_dim; }

  struct Part {
    int sequence;
    int64_t position;
    int64_t tokens;
  };
  // The attention outputs of the parts' positions, one after the other.
  std::vector<float> Run(CpuIsa isa, Phase phase, const std::vector<Part>& parts) {
    const CpuKernels& kernels = KernelsFor(isa);
    Batch batch;
    std::vector<float> qkv;
    for (const Part& part : parts) {
      batch.sequences.push_back(
          {phase, batch.rows(), part.tokens, part.position, tables_[part.sequence]});
      batch.tokens.resize(batch.tokens.size() + part.tokens);
      for (int64_t i = 0; i < part.tokens; ++i) {
        const float* q = queries_[part.sequence].data() + (part.position + i) * q_width();
        qkv.insert(qkv.end(), q, q + q_width());
        qkv.resize(qkv.size() + qkv_width() - q_width());
      }
    }
    batch.prefill_rows = phase == Phase::kPrefill ? batch.rows() : 0;
    std::vector<float> out(batch.rows() * q_width());
    AttentionPlan plan;
    plan.Bind(kernels, batch, config_, pool_, 1, {qkv.data(), batch.rows(), qkv_width()},
              {out.data(), batch.rows(), q_width()});
    if (phase == Phase::kPrefill) {
      plan.PlanPrefill();
      const int64_t bytes =
          kernels.prefill_scratch_bytes(config_.heads / config_.kv_heads, config_.head_dim);
      // Dirty scratch: nothing may be taken over from an earlier task.
      std::vector<std::byte> scratch(bytes + 64, std::byte{0xff});
      std::byte* aligned = scratch.data() + (-reinterpret_cast<uintptr_t>(scratch.data()) & 63);
      for (int64_t task = 0; task < plan.tasks(); ++task) plan.RunPrefill(task, aligned);
    } else {
      plan.PlanDecode();
      std::vector<std::byte> scratch(plan.decode_scratch_bytes() + 64);
      std::byte* aligned = scratch.data() + (-reinterpret_cast<uintptr_t>(scratch.data()) & 63);
      for (int64_t task = 0; task < plan.tasks(); ++task) plan.RunDecode(task, aligned);
      for (int64_t row = 0; row < batch.rows(); ++row) plan.MergeDecode(row);
    }
    return out;
  }

  // Plain attention of one position.
  std::vector<double> Reference(int sequence, int64_t position) const {
    const int dim = config_.head_dim;
    std::vector<double> out(q_width());
    for (int head = 0; head < config_.heads; ++head) {
      const int kv_head = head / (config_.heads / config_.kv_heads);
      const float* q = queries_[sequence].data() + position * q_width() + head * dim;
      std::vector<double> weights;
      double total = 0;
      for (int64_t key = 0; key <= position; ++key) {
        double score = 0;
        for (int d = 0; d < dim; ++d) score += q[d] * At(sequence, key, kv_head, d);
        weights.push_back(std::exp(score / std::sqrt(dim)));
        total += weights.back();
      }
      for (int64_t key = 0; key <= position; ++key) {
        for (int d = 0; d < dim; ++d) {
          out[head * dim + d] +=
              weights[key] / total * At(sequence, key, config_.kv_heads + kv_head, d);
        }
      }
    }
    return out;
  }

 private:
  // Element d of a position's key (row = kv head) or value (row = kv_heads + kv head).
  double At(int sequence, int64_t position, int row, int d) const {
    const KvLayout& layout = pool_.layout;
    const BlockId block = tables_[sequence][position / layout.block_tokens];
    const int64_t offset =
        layout.SlabOffset(pool_.blocks, 1, block) / 2 +
        (int64_t{row} * layout.block_tokens + position % layout.block_tokens) * layout.head_dim + d;
    return F32FromBF16(bits_[offset]);
  }

  ModelConfig config_;
  KvPool pool_;
  std::vector<int64_t> lengths_;
  std::vector<uint16_t> bits_;
  std::vector<std::vector<BlockId>> tables_;
  std::vector<std::vector<float>> queries_;
};

class CpuAttentionTest : public testing::TestWithParam<CpuIsa> {
 protected:
  void ExpectNear(const std::vector<float>& got, int64_t row, const std::vector<double>& want,
                  double tolerance, const std::string& what) {
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(got[row * want.size() + i], want[i], tolerance) << what << " element " << i;
    }
  }
  // bf16 queries and weights where the level multiplies bf16: 2^-9 of a unit-sized score.
  double PrefillTolerance() const { return GetParam() >= CpuIsa::kAvx512Bf16 ? 3e-2 : 2e-5; }
};

TEST_P(CpuAttentionTest, DecodeAgainstFloat64) {
  for (int group = 1; group <= 8; ++group) {
    const Shape shape{.kv_heads = 2,
                      .group = group,
                      .head_dim = std::vector{64, 128, 96, 16}[group % 4],
                      .block_tokens = std::vector{16, 32, 64}[group % 3]};
    const std::vector<int64_t> lengths = {1, 15, 17, 256, 257, 700};
    World world(shape, lengths, group);
    std::vector<World::Part> parts;
    for (size_t i = 0; i < lengths.size(); ++i) {
      parts.push_back({static_cast<int>(i), lengths[i] - 1, 1});
    }
    const std::vector<float> out = world.Run(GetParam(), Phase::kDecode, parts);
    for (size_t i = 0; i < lengths.size(); ++i) {
      ExpectNear(out, i, world.Reference(i, lengths[i] - 1), 2e-5,
                 "group " + std::to_string(group) + " length " + std::to_string(lengths[i]));
      const std::vector<float> alone = world.Run(GetParam(), Phase::kDecode, {parts[i]});
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), out.begin() + i * world.q_width()))
          << "a neighbour changed sequence " << i;
    }
  }
}

TEST_P(CpuAttentionTest, PrefillAgainstFloat64) {
  for (int group = 1; group <= 8; ++group) {
    const Shape shape{.kv_heads = 1 + group % 2,
                      .group = group,
                      .head_dim = std::vector{64, 128, 96, 16}[group % 4],
                      .block_tokens = std::vector{16, 32, 64}[group % 3]};
    World world(shape, {150, 70, 1}, group + 20);
    const std::vector<World::Part> parts = {{0, 37, 113}, {1, 0, 70}, {2, 0, 1}};
    const std::vector<float> out = world.Run(GetParam(), Phase::kPrefill, parts);
    int64_t row = 0;
    for (const World::Part& part : parts) {
      for (int64_t i = 0; i < part.tokens; ++i, ++row) {
        ExpectNear(
            out, row, world.Reference(part.sequence, part.position + i), PrefillTolerance(),
            "group " + std::to_string(group) + " position " + std::to_string(part.position + i));
      }
    }
  }
}

// The error is that of rounding queries and attention weights, which no context makes larger: many
// keys average it away as they do the output.
TEST_P(CpuAttentionTest, PrefillIsAsExactFarInAsAtTheBeginning) {
  const double relative_max = GetParam() >= CpuIsa::kAvx512Bf16 ? 3e-3 : 3e-6;
  World world({.kv_heads = 1, .group = 3, .head_dim = 64, .block_tokens = 16}, {8000}, 9);
  for (const int64_t position : {200, 2000, 7980}) {
    constexpr int64_t kRows = 8;
    const std::vector<float> out = world.Run(GetParam(), Phase::kPrefill, {{0, position, kRows}});
    double error = 0, norm = 0;
    for (int64_t row = 0; row < kRows; ++row) {
      const std::vector<double> want = world.Reference(0, position + row);
      for (size_t i = 0; i < want.size(); ++i) {
        error += std::pow(out[row * want.size() + i] - want[i], 2);
        norm += want[i] * want[i];
      }
    }
    EXPECT_LT(std::sqrt(error / norm), relative_max) << position;
  }
}

TEST_P(CpuAttentionTest, PrefillDoesNotDependOnChunksOrNeighbours) {
  World world({.kv_heads = 1, .group = 3, .head_dim = 64, .block_tokens = 16}, {1000, 90}, 3);
  const std::vector<float> whole = world.Run(GetParam(), Phase::kPrefill, {{0, 0, 1000}});
  for (const int64_t chunk : {37, 64, 256, 512}) {
    for (int64_t first = 0; first < 1000; first += chunk) {
      const int64_t tokens = std::min<int64_t>(chunk, 1000 - first);
      const std::vector<float> part =
          world.Run(GetParam(), Phase::kPrefill, {{1, 5, 40}, {0, first, tokens}});
      ASSERT_TRUE(std::equal(part.begin() + 40 * world.q_width(), part.end(),
                             whole.begin() + first * world.q_width()))
          << "chunk " << chunk << " at " << first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, CpuAttentionTest, testing::ValuesIn(LevelsHere()),
                         [](const auto& info) { return std::string(CpuIsaName(info.param)); });

}  // namespace
}  // namespace longhaul
