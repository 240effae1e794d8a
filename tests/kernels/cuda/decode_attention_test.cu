// Decode attention on a GPU against a plain kernel in float64, which is held against the host
// first. Skipped where no GPU answers.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/kernels/cuda/decode_world.cuh"

namespace longhaul {
namespace {

// One query head of one row a thread block of head_dim threads; weights [rows * heads][keys_max].
__global__ void ReferenceKernel(const __nv_bfloat16* layer, KvLayout layout, int64_t slab_elements,
                                const __nv_bfloat16* qkv, int64_t qkv_stride, int heads,
                                const int32_t* tables, const DecodeRow* rows, int64_t keys_max,
                                double* weights, double* out) {
  const DecodeRow row = rows[blockIdx.x / heads];
  const int head = blockIdx.x % heads;
  const int kv_head = head / (heads / layout.kv_heads);
  const int dims = layout.head_dim;
  const __nv_bfloat16* query = qkv + blockIdx.x / heads * qkv_stride + head * dims;
  double* weight = weights + blockIdx.x * keys_max;
  const auto vector_at = [&](int key, int which) {
    return layer + tables[row.table + key / layout.block_tokens] * slab_elements +
           (int64_t{which * layout.kv_heads + kv_head} * layout.block_tokens +
            key % layout.block_tokens) *
               dims;
  };
  for (int key = threadIdx.x; key < row.keys; key += blockDim.x) {
    double score = 0.0;
    for (int d = 0; d < dims; ++d) {
      score += static_cast<double>(__bfloat162float(query[d])) *
               static_cast<double>(__bfloat162float(vector_at(key, 0)[d]));
    }
    weight[key] = score / sqrt(static_cast<double>(dims));
  }
  __syncthreads();
  double max = -1e300, sum = 0.0, value = 0.0;
  for (int key = 0; key < row.keys; ++key) max = fmax(max, weight[key]);
  for (int key = 0; key < row.keys; ++key) {
    const double w = exp(weight[key] - max);
    sum += w;
    value += w * static_cast<double>(__bfloat162float(vector_at(key, 1)[threadIdx.x]));
  }
  out[int64_t{blockIdx.x} * dims + threadIdx.x] = value / sum;
}

std::vector<double> Reference(const DecodeWorld& world) {
  const DecodeWorldOptions& o = world.options();
  const int64_t keys_max = *std::max_element(o.keys.begin(), o.keys.end());
  DeviceArray<DecodeRow> rows(world.plan_rows);
  DeviceArray<double> weights(world.rows() * o.heads * keys_max);
  DeviceArray<double> out(world.rows() * world.out_stride());
  ReferenceKernel<<<world.rows() * o.heads, o.layout.head_dim>>>(
      world.pool.data() + o.layer * o.pool_blocks * o.layout.slab_elements(), o.layout,
      o.layout.slab_elements(), world.qkv.data(), world.qkv_stride(), o.heads, world.tables.data(),
      rows.data(), keys_max, weights.data(), out.data());
  CudaCheckLaunch("reference");
  return out.Read();
}

std::vector<__nv_bfloat16> Attend(DecodeWorld& world) {
  world.out.Poison();
  LaunchDecodeAttention(world.Params(), nullptr);
  CudaCheck(cudaDeviceSynchronize(), "decode attention");
  return world.out.Read();
}

uint16_t Bits(__nv_bfloat16 value) {
  uint16_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// How far `out` is from `reference`, of its norm. Weights and results round to bf16 once each.
double RelativeError(const std::vector<__nv_bfloat16>& out, const std::vector<double>& reference) {
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < out.size(); ++i) {
    const double difference = static_cast<double>(__bfloat162float(out[i])) - reference[i];
    error += difference * difference;
    norm += reference[i] * reference[i];
  }
  return std::sqrt(error / norm);
}
constexpr double kRelativeErrorMax = 4e-3;

DecodeWorldOptions Options(int head_dim, int kv_heads, int group, int block_tokens,
                           std::vector<int32_t> keys, uint64_t seed) {
  DecodeWorldOptions options;
  options.layout = {
      .layers = 1, .kv_heads = kv_heads, .head_dim = head_dim, .block_tokens = block_tokens};
  options.heads = kv_heads * group;
  options.keys = std::move(keys);
  options.seed = seed;
  return options;
}

const std::vector<int32_t> kRagged = {1,    15,  16,  17,   31,   63,   64,   65,    127,  128,
                                      129,  511, 512, 513,  1000, 1024, 1025, 4097,  8191, 8192,
                                      8193, 700, 3,   8704, 8705, 2049, 5000, 16385, 30000};

class DecodeAttentionTest : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDevices() == 0) GTEST_SKIP() << "no GPU answers";
  }
};

TEST_F(DecodeAttentionTest, TheReferenceIsWhatTheHostComputes) {
  DecodeWorld world(Options(64, 2, 3, 16, {37}, 3));
  const std::vector<double> reference = Reference(world);
  const std::vector<__nv_bfloat16> pool = world.pool.Read(), qkv = world.qkv.Read();
  const std::vector<int32_t> tables = world.tables.Read();
  for (int head = 0; head < 6; ++head) {
    const auto at = [&](int key, int which, int d) {
      const int64_t slab = tables[key / 16] * world.options().layout.slab_elements();
      return static_cast<double>(
          __bfloat162float(pool[slab + ((which * 2 + head / 3) * 16 + key % 16) * 64 + d]));
    };
    std::vector<double> weights(37);
    double sum = 0.0;
    for (int key = 0; key < 37; ++key) {
      double score = 0.0;
      for (int d = 0; d < 64; ++d) {
        score += static_cast<double>(__bfloat162float(qkv[head * 64 + d])) * at(key, 0, d);
      }
      sum += weights[key] = std::exp(score / 8.0);
    }
    for (int d = 0; d < 64; ++d) {
      double value = 0.0;
      for (int key = 0; key < 37; ++key) value += weights[key] * at(key, 1, d);
      EXPECT_NEAR(reference[head * 64 + d], value / sum, 1e-12);
    }
  }
}

TEST_F(DecodeAttentionTest, EqualsTheReferenceForEveryShape) {
  uint64_t seed = 100;
  for (const int head_dim : {64, 128}) {
    for (const int group : {1, 2, 3, 4, 5, 6, 7, 8, 12}) {
      const int block_tokens = std::vector<int>{16, 32, 64, 48, 128}[++seed % 5];
      DecodeWorld world(Options(head_dim, 1 + group % 3, group, block_tokens, kRagged, seed));
      EXPECT_LT(RelativeError(Attend(world), Reference(world)), kRelativeErrorMax)
          << "head_dim " << head_dim << ", group " << group << ", block_tokens " << block_tokens
          << ", seed " << seed;
    }
  }
}

TEST_F(DecodeAttentionTest, EqualsTheReferenceForAnyNumberOfRows) {
  std::mt19937_64 random(5);
  for (const int rows : {1, 2, 7, 64, 130}) {
    std::vector<int32_t> keys(rows);
    for (int32_t& k : keys) k = 1 + static_cast<int32_t>(random() % 3000);
    DecodeWorld world(Options(128, 8, 4, 64, keys, random() % 1000));
    EXPECT_LT(RelativeError(Attend(world), Reference(world)), kRelativeErrorMax) << rows;
  }
}

TEST_F(DecodeAttentionTest, ARowAloneHasTheSameBits) {
  for (const int head_dim : {64, 128}) {
    DecodeWorld world(Options(head_dim, 2, 4, 32, kRagged, 11));
    const std::vector<__nv_bfloat16> together = Attend(world);
    for (int row = 0; row < world.rows(); ++row) {
      std::vector<DecodeRow> alone(world.rows());
      alone[row] = world.plan_rows[row];
      DecodeSchedule schedule;
      PlanDecode(alone, &schedule);
      world.SetSchedule(schedule);
      const std::vector<__nv_bfloat16> single = Attend(world);
      int64_t different = 0, written = 0;
      for (int64_t i = 0; i < world.out.size(); ++i) {
        const bool own = i / world.out_stride() == row;
        if (own) different += Bits(single[i]) != Bits(together[i]);
        if (!own) written += Bits(single[i]) != 0xFFFF;
      }
      EXPECT_EQ(different, 0) << "keys " << world.options().keys[row];
      EXPECT_EQ(written, 0) << "rows without keys";
    }
  }
}

TEST_F(DecodeAttentionTest, AnyOrderAndGroupingOfItemsHasTheSameBits) {
  DecodeWorld world(Options(128, 2, 4, 64, kRagged, 12));
  const std::vector<__nv_bfloat16> planned = Attend(world);
  DecodeSchedule schedule;
  PlanDecode(world.plan_rows, &schedule);
  std::shuffle(schedule.items.begin(), schedule.items.end(), std::mt19937_64(1));
  world.SetSchedule(schedule);
  const std::vector<__nv_bfloat16> shuffled = Attend(world);
  std::vector<DecodeItem> whole;
  for (DecodeItem item : schedule.items) {
    if (item.first_part != 0) continue;
    item.parts = DecodeParts(item.keys);
    whole.push_back(item);
  }
  schedule.items = whole;
  world.SetSchedule(schedule);
  const std::vector<__nv_bfloat16> by_row = Attend(world);
  for (int64_t i = 0; i < world.out.size(); ++i) {
    ASSERT_EQ(Bits(planned[i]), Bits(shuffled[i])) << i;
    ASSERT_EQ(Bits(planned[i]), Bits(by_row[i])) << i;
  }
}

TEST_F(DecodeAttentionTest, AGraphCapturedOnceFollowsTheLengths) {
  DecodeWorld world(Options(128, 4, 4, 64, kRagged, 13));
  cudaStream_t stream;
  CudaCheck(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  CudaCheck(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int layer = 0; layer < 3; ++layer) LaunchDecodeAttention(world.Params(), stream);
  CudaCheck(cudaStreamEndCapture(stream, &graph), "capture");
  CudaCheck(cudaGraphInstantiate(&replay, graph, 0), "graph");
  for (int step = 0; step < 4; ++step) {
    std::vector<DecodeRow> rows = world.plan_rows;
    for (DecodeRow& row : rows) {
      row.settled = row.keys * (step + 1) / 5;
      row.keys = row.settled + 1;
    }
    DecodeSchedule schedule;
    PlanDecode(rows, &schedule);
    world.SetSchedule(schedule);
    world.out.Poison();
    CudaCheck(cudaDeviceSynchronize(), "uploads");
    CudaCheck(cudaGraphLaunch(replay, stream), "replay");
    CudaCheck(cudaStreamSynchronize(stream), "replay");
    const std::vector<__nv_bfloat16> replayed = world.out.Read();
    const std::vector<__nv_bfloat16> single = Attend(world);
    for (int64_t i = 0; i < world.out.size(); ++i) {
      ASSERT_EQ(Bits(replayed[i]), Bits(single[i])) << "step " << step << ", " << i;
    }
  }
  const std::vector<std::byte> counters = world.scratch.Read();
  for (int64_t i = 0; i < world.scratch_layout.counter_bytes(); ++i) {
    ASSERT_EQ(counters[i], std::byte{0}) << "a counter is left behind";
  }
  CudaCheck(cudaGraphExecDestroy(replay), "graph");
  CudaCheck(cudaGraphDestroy(graph), "graph");
  CudaCheck(cudaStreamDestroy(stream), "stream");
}

TEST_F(DecodeAttentionTest, ReachesBeyondTwoToThe31Elements) {
  DecodeWorldOptions options = Options(128, 8, 4, 64, {1000, 70}, 14);
  options.layout.layers = 2;
  options.layer = 1;
  options.pool_blocks = 17000;
  options.first_block = 16900;
  const int64_t bytes = options.layout.block_bytes() * options.pool_blocks;
  size_t free = 0, total = 0;
  CudaCheck(cudaMemGetInfo(&free, &total), "memory");
  if (static_cast<int64_t>(free) < bytes + (int64_t{1} << 30)) GTEST_SKIP() << "too little memory";
  DecodeWorld world(options);
  EXPECT_LT(RelativeError(Attend(world), Reference(world)), kRelativeErrorMax);
}

}  // namespace
}  // namespace longhaul
