// Tensors and pools of more than 2^31 elements and 2^32 bytes, through the door Backend: rows far
// behind are, bit for bit, what a step of those rows alone makes of them, and a pool's last blocks
// are as good as its first. Skipped where the device has too little memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/random_data.h"

namespace longhaul {
namespace {

constexpr int64_t kRows = 131200;  // a context of 128K and a little
constexpr int64_t kPeriod = 512;   // rows repeat after so many
constexpr int64_t kBf16 = 2;

class LargeOffsetsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!CudaDeviceAnswers(0).ok()) GTEST_SKIP() << "no CUDA device";
    backend_ = MakeCudaBackend({.memory_share = 0.95}).value();
  }
  bool Fits(int64_t bytes) { return backend_->Allocate(bytes).ok(); }
  std::byte* New(int64_t bytes) {
    return buffers_.emplace_back(backend_->Allocate(bytes).value())->data();
  }
  // [rows, width], of which the rows repeat after kPeriod.
  template <typename T>
  Tensor Repeated(const std::vector<T>& period, int64_t rows) {
    const auto period_bytes = static_cast<int64_t>(period.size() * sizeof(T));
    const int64_t bytes = period_bytes / kPeriod * rows;
    std::byte* data = New(bytes);
    backend_->Copy(data, period.data(), std::min(period_bytes, bytes));
    for (int64_t done = period_bytes; done < bytes; done *= 2) {
      backend_->Copy(data + done, data, std::min(done, bytes - done));
    }
    return {reinterpret_cast<float*>(data), rows, static_cast<int64_t>(period.size()) / kPeriod};
  }
  // Zeroes, so that what is not written shows.
  Tensor Room(int64_t rows, int64_t width, int64_t element_bytes) {
    const std::vector<std::byte> zeroes(kPeriod * width * element_bytes);
    Tensor room = Repeated(zeroes, rows);
    room.width = width;
    return room;
  }
  std::string Down(Tensor tensor, int64_t first, int64_t rows, int64_t element_bytes) {
    const int64_t row_bytes = tensor.width * element_bytes;
    std::string bytes(rows * row_bytes, '\0');
    backend_->Copy(bytes.data(), reinterpret_cast<std::byte*>(tensor.data) + first * row_bytes,
                   rows * row_bytes);
    backend_->Wait(backend_->Record());
    return bytes;
  }
  std::unique_ptr<PreparedWeight> Weight(WeightUse use, int64_t rows, int64_t cols) {
    const int parts = use == WeightUse::kGated ? 2 : 1;
    std::vector<WeightView> views;
    for (int i = 0; i < parts; ++i) {
      views.push_back(
          weights_.emplace_back(MakeRandomWeight(DType::kBF16, rows, cols, weights_.size())).view);
    }
    return backend_->Prepare(use, views, {}).value();
  }
  // Every kPeriod rows of `whole` are `one` [kPeriod, width]: at its beginning, where elements and
  // where bytes outgrow 31 and 32 bits, and at its end.
  void ExpectRepeats(Tensor whole, Tensor one, int64_t element_bytes, const char* what) {
    const std::string want = Down(one, 0, kPeriod, element_bytes);
    ASSERT_NE(want, std::string(want.size(), '\0')) << what;
    const int64_t elements = (int64_t{1} << 31) / whole.width / kPeriod * kPeriod;
    const int64_t bytes = elements * 2 / element_bytes;
    for (const int64_t first : {int64_t{0}, elements, bytes}) {
      if (first + kPeriod > whole.rows) continue;
      EXPECT_TRUE(Down(whole, first, kPeriod, element_bytes) == want) << what << ", row " << first;
    }
    const int64_t first = whole.rows / kPeriod * kPeriod;
    const int64_t row_bytes = whole.width * element_bytes;
    EXPECT_TRUE(Down(whole, first, whole.rows - first, element_bytes) ==
                want.substr(0, (whole.rows - first) * row_bytes))
        << what << ", the last rows";
  }

  std::unique_ptr<Backend> backend_;
  std::vector<std::unique_ptr<DeviceBuffer>> buffers_;
  std::vector<RandomWeight> weights_;
};

std::vector<uint16_t> RandomBf16(int64_t count, uint64_t seed) {
  std::vector<uint16_t> bits;
  for (const float value : RandomFloats(count, seed)) bits.push_back(BF16FromF32(value));
  return bits;
}

TEST_F(LargeOffsetsTest, FeedForwardOf128KRows) {
  constexpr int64_t kWidth = 28672, kHidden = 256;
  if (!Fits(kRows * kWidth * kBf16 + (int64_t{2} << 30))) GTEST_SKIP() << "too little memory";
  const auto gated = Weight(WeightUse::kGated, kWidth, kHidden);
  const auto down = Weight(WeightUse::kMatrix, kHidden, kWidth);
  const std::vector<uint16_t> period = RandomBf16(kPeriod * kHidden, 1);
  Tensor activated[2], out[2];
  for (const bool alone : {false, true}) {
    const int64_t rows = alone ? kPeriod : kRows;
    const Tensor x = Repeated(period, rows);
    activated[alone] = Room(rows, kWidth, kBf16);
    out[alone] = Room(rows, kHidden, sizeof(float));
    backend_->GatedMatMul(activated[alone], x, *gated, Phase::kPrefill);
    backend_->MatMul(out[alone], activated[alone], *down, /*accumulate=*/true, Phase::kPrefill);
  }
  ExpectRepeats(activated[0], activated[1], kBf16, "activated");
  ExpectRepeats(out[0], out[1], sizeof(float), "out");
}

TEST_F(LargeOffsetsTest, ProductsAndNormsOfWideRows) {
  constexpr int64_t kWidth = 16384, kNarrow = 256;
  static_assert(kRows * kWidth > int64_t{1} << 31);
  if (!Fits(kRows * kWidth * 12 + (int64_t{2} << 30))) GTEST_SKIP() << "too little memory";
  const auto wide = Weight(WeightUse::kMatrix, kWidth, kNarrow);
  const auto norm = Weight(WeightUse::kVector, 1, kWidth);
  const std::vector<uint16_t> period = RandomBf16(kPeriod * kNarrow, 2);
  const std::vector<float> stream = RandomFloats(kPeriod * kWidth, 3);
  Tensor residual[2], normed[2], product[2];
  for (const bool alone : {false, true}) {
    const int64_t rows = alone ? kPeriod : kRows;
    const Tensor x = Repeated(period, rows);
    residual[alone] = Repeated(stream, rows);
    normed[alone] = Room(rows, kWidth, kBf16);
    product[alone] = Room(rows, kWidth, kBf16);
    backend_->MatMul(residual[alone], x, *wide, /*accumulate=*/true, Phase::kPrefill);
    backend_->MatMul(product[alone], x, *wide, /*accumulate=*/false, Phase::kPrefill);
    backend_->RmsNorm(normed[alone], residual[alone], *norm, 1e-5f, Phase::kPrefill);
  }
  ExpectRepeats(residual[0], residual[1], sizeof(float), "residual");
  ExpectRepeats(product[0], product[1], kBf16, "product");
  ExpectRepeats(normed[0], normed[1], kBf16, "normed");
}

// One sequence of 128K tokens in one step, with its KV in the last blocks of a pool whose layers
// have more than 2^31 elements, and with few rows in a pool that just holds it.
class LargePoolTest : public LargeOffsetsTest {
 protected:
  static constexpr int kHeads = 128, kKvHeads = 8, kDim = 128, kLayer = 1;
  static constexpr int64_t kQkvWidth = int64_t{kHeads + 2 * kKvHeads} * kDim;
  static_assert(kRows * kHeads * kDim > int64_t{1} << 31);

  void SetUp() override {
    LargeOffsetsTest::SetUp();
    if (IsSkipped()) return;
    config_.layers = 2;
    config_.heads = kHeads;
    config_.kv_heads = kKvHeads;
    config_.head_dim = kDim;
    config_.hidden = kHeads * kDim;
    config_.ffn_hidden = 8;
    config_.vocab = 8;
    config_.context_tokens_max = kRows + 1;
    config_.rope_theta = 500000.0;
    norm_ = Weight(WeightUse::kVector, 1, kDim);
  }
  KvPool Pool(int64_t blocks) {
    KvPool pool;
    pool.layout = {config_.layers, kKvHeads, kDim, backend_->block_tokens()};
    pool.blocks = blocks;
    pool.data = New(blocks * pool.layout.block_bytes());
    return pool;
  }
  // Norms, rotation, KV and attention of the rows `qkv`, the sequence's from `position` on.
  void Step(Phase phase, Tensor qkv, Tensor out, int64_t position, const KvPool& pool,
            const std::vector<BlockId>& blocks) {
    Batch batch;
    batch.tokens.assign(qkv.rows, 0);
    if (phase == Phase::kPrefill) batch.prefill_rows = qkv.rows;
    batch.sequences.push_back({phase, 0, qkv.rows, position, blocks});
    ASSERT_TRUE(backend_->BeginStep(batch, config_, pool).ok());
    backend_->HeadNorm(qkv, 0, kHeads + kKvHeads, *norm_, 1e-6f);
    backend_->RopeAndStoreKv(qkv, batch, config_, pool, kLayer);
    backend_->Attention(out, qkv, batch, config_, pool, kLayer, phase);
  }
  std::string Kv(const KvPool& pool, BlockId block) {
    Tensor slab = {
        reinterpret_cast<float*>(pool.data + pool.layout.SlabOffset(pool.blocks, kLayer, block)), 1,
        pool.layout.slab_elements()};
    return Down(slab, 0, 1, kBf16);
  }

  ModelConfig config_;
  std::unique_ptr<PreparedWeight> norm_;
};

TEST_F(LargePoolTest, ASequenceOf128KTokens) {
  const KvLayout layout = {config_.layers, kKvHeads, kDim, backend_->block_tokens()};
  const int64_t needed = layout.BlocksFor(kRows + 1);
  const int64_t blocks = (int64_t{1} << 31) / layout.slab_elements() + needed + 5;
  if (!Fits((blocks + needed) * layout.block_bytes() + kRows * kBf16 * (kQkvWidth + kHeads * kDim) +
            (int64_t{2} << 30))) {
    GTEST_SKIP() << "too little memory";
  }
  const KvPool large = Pool(blocks);
  const KvPool small = Pool(needed);
  std::vector<BlockId> far(needed), near(needed);
  std::iota(far.begin(), far.end(), static_cast<BlockId>(blocks - needed));
  std::iota(near.rbegin(), near.rend(), 0);
  std::shuffle(far.begin(), far.end(), std::mt19937_64(4));
  const std::vector<uint16_t> period = RandomBf16(kPeriod * kQkvWidth, 5);

  const Tensor qkv = Repeated(period, kRows);
  const Tensor out = Room(kRows, kHeads * kDim, kBf16);
  Step(Phase::kPrefill, qkv, out, 0, large, far);
  // The same in steps of kPeriod rows: every one repeats the rows, at another position.
  const Tensor chunk_out = Room(kPeriod, kHeads * kDim, kBf16);
  for (int64_t position = 0; position < kRows; position += kPeriod) {
    Tensor chunk = Repeated(period, std::min(kPeriod, kRows - position));
    Tensor some_out = chunk_out;
    some_out.rows = chunk.rows;
    Step(Phase::kPrefill, chunk, some_out, position, small, near);
    if (position % 16384 == 0 || position + kPeriod >= kRows) {
      ASSERT_TRUE(Down(out, position, chunk.rows, kBf16) == Down(some_out, 0, chunk.rows, kBf16))
          << "rows from " << position;
    }
    buffers_.pop_back();
  }
  for (int64_t i = 0; i < needed - 1; i += 50) {
    ASSERT_TRUE(Kv(large, far[i]) == Kv(small, near[i])) << "block " << i;
  }
  std::string decoded[2];
  for (const bool alone : {false, true}) {
    Tensor row = Repeated(period, 1);
    Step(Phase::kDecode, row, chunk_out, kRows, alone ? small : large, alone ? near : far);
    decoded[alone] = Down(chunk_out, 0, 1, kBf16);
  }
  EXPECT_TRUE(decoded[0] == decoded[1]);
  EXPECT_NE(decoded[0], std::string(decoded[0].size(), '\0'));
}

}  // namespace
}  // namespace longhaul
