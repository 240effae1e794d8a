// Prefill products on the GPU: against float64, and a row's bits among few rows and many.
#include <algorithm>
#include <cmath>
#include <random>

#include "common/model/half.h"
#include "gtest/gtest.h"
#include "kernels/cuda/prefill_matmul.h"
#include "tests/kernels/cuda/device_array.h"

namespace longhaul {
namespace {

using Shape = PrefillMatmul::Shape;

std::vector<uint16_t> RandomBf16(int64_t size, float deviation, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<uint16_t> values(size);
  for (uint16_t& value : values) value = BF16FromF32(normal(random));
  return values;
}

class CudaPrefillMatmulTest : public testing::TestWithParam<Shape> {
 protected:
  static constexpr int64_t kRowsMax = 2100;

  void SetUp() override {
    if (CudaDevices() == 0) GTEST_SKIP() << "no CUDA device";
    absl::StatusOr<std::unique_ptr<CudaDevice>> device = CudaDevice::Open(0, 0.5);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    absl::StatusOr<std::unique_ptr<PrefillMatmul>> matmul = PrefillMatmul::Make(*device_);
    ASSERT_TRUE(matmul.ok()) << matmul.status();
    matmul_ = *std::move(matmul);
    weight_ = RandomBf16(shape().n * shape().k, 0.05f, 1);
    x_ = RandomBf16(kRowsMax * shape().k, 1.0f, 2);
    bias_ = RandomBf16(shape().n, 1.0f, 3);
    device_weight_ = std::make_unique<DeviceArray<uint16_t>>(weight_);
    device_x_ = std::make_unique<DeviceArray<uint16_t>>(x_);
    device_bias_ = std::make_unique<DeviceArray<uint16_t>>(bias_);
    matmul_->Tune(shape(), device_weight_->data(), bias());
  }
  const Shape& shape() const { return GetParam(); }
  const void* bias() const { return shape().bias ? device_bias_->data() : nullptr; }

  // The outputs of rows [first, first + rows) as float bits, accumulated onto one where the shape
  // accumulates.
  std::vector<float> Run(int64_t first, int64_t rows) {
    const void* x = device_x_->data() + first * shape().k;
    if (shape().accumulate) {
      const DeviceArray<float> out(std::vector<float>(rows * shape().n, 1.0f));
      matmul_->Run(shape(), device_weight_->data(), x, rows, bias(), out.data());
      CudaCheck(cudaDeviceSynchronize(), "prefill product");
      return out.Read();
    }
    DeviceArray<uint16_t> out(rows * shape().n);
    matmul_->Run(shape(), device_weight_->data(), x, rows, bias(), out.data());
    CudaCheck(cudaDeviceSynchronize(), "prefill product");
    const std::vector<uint16_t> values = out.Read();
    std::vector<float> floats(values.size());
    std::transform(values.begin(), values.end(), floats.begin(), F32FromBF16);
    return floats;
  }

  std::unique_ptr<CudaDevice> device_;
  std::unique_ptr<PrefillMatmul> matmul_;
  std::vector<uint16_t> weight_, x_, bias_;
  std::unique_ptr<DeviceArray<uint16_t>> device_weight_, device_x_, device_bias_;
};

TEST_P(CudaPrefillMatmulTest, AgreesWithFloat64) {
  constexpr int64_t kRows = 300;
  const std::vector<float> out = Run(0, kRows);
  std::mt19937_64 random(4);
  double difference = 0;
  double norm = 0;
  for (int sample = 0; sample < 2000; ++sample) {
    const int64_t row = random() % kRows;
    const int64_t column = random() % shape().n;
    double expected = shape().accumulate ? 1.0 : 0.0;
    if (shape().bias) expected += F32FromBF16(bias_[column]);
    for (int64_t i = 0; i < shape().k; ++i) {
      expected += double{F32FromBF16(x_[row * shape().k + i])} *
                  F32FromBF16(weight_[column * shape().k + i]);
    }
    const double off = out[row * shape().n + column] - expected;
    difference += off * off;
    norm += expected * expected;
  }
  // A bf16 output rounds by 2^-9 at most. Float32 sums are far closer, though the matrix unit cuts
  // their low bits off where others would round: over 14,336 terms that is some 1e-5.
  EXPECT_LT(std::sqrt(difference / norm), shape().accumulate ? 5e-5 : 2.5e-3);
}

TEST_P(CudaPrefillMatmulTest, ARowHasTheSameBitsInAnyCompany) {
  constexpr int64_t kRow = 700;
  const std::vector<float> alone = Run(kRow, 1);
  for (const int64_t rows : {2, 33, 64, 65, 100, 128, 200, 256, 400, 512, 800, 1024, 1400}) {
    for (const int64_t first : {kRow, std::max<int64_t>(0, kRow - rows + 1)}) {
      const std::vector<float> out = Run(first, rows);
      const auto begin = out.begin() + (kRow - first) * shape().n;
      ASSERT_TRUE(std::equal(alone.begin(), alone.end(), begin)) << rows << " rows from " << first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaPrefillMatmulTest,
                         testing::Values(Shape{6144, 4096}, Shape{4096, 4096, false, true},
                                         Shape{28672, 4096}, Shape{4096, 14336, false, true},
                                         Shape{960, 576, true}, Shape{576, 576, false, true},
                                         Shape{3072, 576}, Shape{576, 1536, false, true},
                                         Shape{192, 64, true}),
                         [](const testing::TestParamInfo<Shape>& info) {
                           return std::to_string(info.param.n) + "x" + std::to_string(info.param.k);
                         });

}  // namespace
}  // namespace longhaul
