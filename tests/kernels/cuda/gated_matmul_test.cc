// Gate, up and their activation in one kernel: against float64, and a row's bits in any tiling,
// among few rows and many.
#include "kernels/cuda/gated_matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "common/model/half.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_device.h"
#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/random_data.h"

namespace longhaul {
namespace {

struct Shape {
  int64_t n;
  int64_t k;
};

std::vector<Bf16> RandomBf16(int64_t count, uint64_t seed, float deviation) {
  std::vector<Bf16> bits;
  for (const float value : RandomFloats(count, seed, deviation)) bits.push_back(BF16FromF32(value));
  return bits;
}

class GatedMatmulTest : public testing::TestWithParam<Shape> {
 protected:
  static constexpr int64_t kRowsMax = 2100;

  void SetUp() override {
    if (!CudaDeviceAnswers(0).ok()) GTEST_SKIP() << "no CUDA device";
    device_ = CudaDevice::Open(0, 0.5).value();
    const auto [n, k] = GetParam();
    weight_ = RandomBf16(n * k, 1, 1.0f / std::sqrt(static_cast<float>(k)));
    x_ = RandomBf16(kRowsMax * k, 2, 1.0f);
    device_weight_ = std::make_unique<DeviceArray<Bf16>>(weight_);
    device_x_ = std::make_unique<DeviceArray<Bf16>>(x_);
  }
  int64_t width() const { return GetParam().n / 2; }

  // The outputs of rows [first, first + rows).
  std::vector<Bf16> Run(int64_t first, int64_t rows, const GatedTiling& tiling) {
    // What lies behind the last row must stay as it is.
    const DeviceArray<Bf16> out((rows + 1) * width());
    GatedMatmulCall call;
    call.weight = device_weight_->data();
    call.n = GetParam().n;
    call.k = GetParam().k;
    call.x = device_x_->data() + first * call.k;
    call.rows = rows;
    call.out = out.data();
    call.multiprocessors = device_->multiprocessors();
    LaunchGatedMatmul(call, tiling, device_->stream());
    std::vector<Bf16> values = out.Read();
    for (int64_t i = rows * width(); i < (rows + 1) * width(); ++i) EXPECT_EQ(values[i], 0xffff);
    values.resize(rows * width());
    return values;
  }

  double Sum(int64_t row, int64_t weight_row) const {
    const int64_t k = GetParam().k;
    double sum = 0;
    for (int64_t i = 0; i < k; ++i) {
      sum += double{F32FromBF16(x_[row * k + i])} * F32FromBF16(weight_[weight_row * k + i]);
    }
    return sum;
  }
  double Expected(int64_t row, int64_t column) const {
    const int64_t gate_row = column / kGatedRows * 2 * kGatedRows + column % kGatedRows;
    const double gate = Sum(row, gate_row);
    return gate / (1.0 + std::exp(-gate)) * Sum(row, gate_row + kGatedRows);
  }

  std::unique_ptr<CudaDevice> device_;
  std::vector<Bf16> weight_, x_;
  std::unique_ptr<DeviceArray<Bf16>> device_weight_, device_x_;
};

TEST_P(GatedMatmulTest, AgreesWithFloat64) {
  for (const int64_t rows : {1, 63, 127, 129, 300, 2047}) {
    const std::vector<Bf16> out =
        Run(0, rows, ChooseGatedTiling(rows, GetParam().n, device_->multiprocessors()));
    std::mt19937_64 random(4);
    double difference = 0;
    double norm = 0;
    for (int sample = 0; sample < 500; ++sample) {
      const int64_t row = random() % rows;
      const int64_t column = random() % width();
      const double expected = Expected(row, column);
      const double off = F32FromBF16(out[row * width() + column]) - expected;
      difference += off * off;
      norm += expected * expected;
    }
    // A bf16 output rounds by 2^-9 at most.
    EXPECT_LT(std::sqrt(difference / norm), 2.5e-3) << rows << " rows";
  }
}

TEST_P(GatedMatmulTest, ARowHasTheSameBitsInAnyTilingAndCompany) {
  constexpr int64_t kRow = 700;
  const std::vector<Bf16> alone = Run(kRow, 1, kGatedTilings.back());
  for (const GatedTiling& tiling : kGatedTilings) {
    for (const int64_t rows : {1, 33, 128, 129, 400, 1400}) {
      for (const int64_t first : {kRow, std::max<int64_t>(0, kRow - rows + 1)}) {
        const std::vector<Bf16> out = Run(first, rows, tiling);
        const auto begin = out.begin() + (kRow - first) * width();
        ASSERT_TRUE(std::equal(alone.begin(), alone.end(), begin))
            << rows << " rows from " << first << ", " << tiling.columns << " columns, clusters of "
            << tiling.cluster;
      }
    }
  }
}

// n: whole tiles of every width, of none, and less than a tile; k: no multiple of a stage.
INSTANTIATE_TEST_SUITE_P(Shapes, GatedMatmulTest,
                         testing::Values(Shape{28672, 4096}, Shape{3072, 576}, Shape{1328, 72},
                                         Shape{112, 64}),
                         [](const testing::TestParamInfo<Shape>& info) {
                           return std::to_string(info.param.n) + "x" + std::to_string(info.param.k);
                         });

// What was measured to be the fastest for an 8B model on 132 multiprocessors.
TEST(GatedTilingTest, FillsTheDevice) {
  constexpr int64_t kRows8B = 28672;
  EXPECT_EQ(ChooseGatedTiling(100, kRows8B, 132), (GatedTiling{128, 1}));
  EXPECT_EQ(ChooseGatedTiling(512, kRows8B, 132), (GatedTiling{224, 2}));
  EXPECT_EQ(ChooseGatedTiling(2048, kRows8B, 132), (GatedTiling{256, 2}));
  EXPECT_EQ(ChooseGatedTiling(8192, kRows8B, 132), (GatedTiling{256, 2}));
}

}  // namespace
}  // namespace longhaul
