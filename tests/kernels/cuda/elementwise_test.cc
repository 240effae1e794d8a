// The row-by-row CUDA kernels against float64 on the host, over random inputs; outputs are poisoned
// first.
#include "kernels/cuda/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/rope.h"
#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/random_data.h"

namespace longhaul {
namespace {

class ElementwiseTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!CudaDeviceAnswers(0).ok()) GTEST_SKIP() << "no CUDA device";
    device_ = CudaDevice::Open(0, 0.5).value();
  }
  template <typename T>
  DeviceArray<T> Up(const std::vector<T>& values) {
    return DeviceArray<T>(values);
  }
  template <typename T>
  DeviceArray<T> Poisoned(int64_t count) {
    return DeviceArray<T>(count);
  }
  cudaStream_t stream() { return device_->stream(); }

  std::unique_ptr<CudaDevice> device_;
};

std::vector<Bf16> RandomBf16(int64_t count, uint64_t seed, float deviation = 1.0f) {
  std::vector<Bf16> bits;
  for (const float value : RandomFloats(count, seed, deviation)) bits.push_back(BF16FromF32(value));
  return bits;
}

// Rounded once from the exact value: half a unit of 8 significant bits, and a hair for float32.
void ExpectRounded(Bf16 got, double want, const std::string& where) {
  const double value = F32FromBF16(got);
  EXPECT_LE(std::abs(value - want), std::abs(want) * (0x1p-8 + 1e-5) + 1e-6)
      << where << ": " << value << " for " << want;
}

TEST_F(ElementwiseTest, EmbedCopiesRows) {
  for (const int64_t width : {8, 576, 4096}) {
    const std::vector<Bf16> table = RandomBf16(50 * width, 1);
    const std::vector<int32_t> tokens = {3, 49, 0, 3, 17};
    auto out = Poisoned<float>(tokens.size() * width);
    const auto up_table = Up(table);
    const auto up_tokens = Up(tokens);
    LaunchEmbed(out.data(), up_table.data(), up_tokens.data(), tokens.size(), width, stream());
    const std::vector<float> got = out.Read();
    for (size_t row = 0; row < tokens.size(); ++row) {
      for (int64_t i = 0; i < width; ++i) {
        ASSERT_EQ(got[row * width + i], F32FromBF16(table[tokens[row] * width + i]));
      }
    }
  }
}

TEST_F(ElementwiseTest, RmsNormAgainstFloat64) {
  for (const int64_t width : {8, 64, 576, 1024, 4096, 4104, 8192, 16384}) {
    const int64_t rows = 5;
    const std::vector<float> x = RandomFloats(rows * width, width, 3.0f);
    const std::vector<float> weight = RandomFloats(width, width + 1);
    auto out = Poisoned<Bf16>(rows * width);
    const auto up_x = Up(x);
    const auto up_weight = Up(weight);
    LaunchRmsNorm(out.data(), up_x.data(), up_weight.data(), rows, width, 1e-5f, stream());
    const std::vector<Bf16> got = out.Read();
    for (int64_t row = 0; row < rows; ++row) {
      double squares = 0;
      for (int64_t i = 0; i < width; ++i)
        squares += double{x[row * width + i]} * x[row * width + i];
      const double scale = 1.0 / std::sqrt(squares / width + 1e-5);
      for (int64_t i = 0; i < width; ++i) {
        ExpectRounded(got[row * width + i], x[row * width + i] * scale * weight[i],
                      "width " + std::to_string(width));
      }
    }
  }
}

TEST_F(ElementwiseTest, HeadNormAgainstFloat64) {
  for (const int head_dim : {64, 128}) {
    const int heads = 3;
    const int64_t rows = 7;
    const int64_t width = 5 * head_dim + 8;
    const int64_t column = head_dim;
    const std::vector<Bf16> x = RandomBf16(rows * width, head_dim, 2.0f);
    const std::vector<float> weight = RandomFloats(head_dim, 4);
    auto qkv = Up(x);
    const auto up_weight = Up(weight);
    LaunchHeadNorm(qkv.data(), rows, width, column, heads, head_dim, up_weight.data(), 1e-6f,
                   stream());
    const std::vector<Bf16> got = qkv.Read();
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        const int64_t in_heads = i - column;
        if (in_heads < 0 || in_heads >= heads * head_dim) {
          ASSERT_EQ(got[row * width + i], x[row * width + i]);
          continue;
        }
        const int64_t first = row * width + column + in_heads / head_dim * head_dim;
        double squares = 0;
        for (int d = 0; d < head_dim; ++d) {
          squares += std::pow(double{F32FromBF16(x[first + d])}, 2);
        }
        const double scale = 1.0 / std::sqrt(squares / head_dim + 1e-6);
        ExpectRounded(got[row * width + i],
                      F32FromBF16(x[row * width + i]) * scale * weight[in_heads % head_dim],
                      "head " + std::to_string(in_heads / head_dim));
      }
    }
  }
}

TEST_F(ElementwiseTest, RotatesAndStores) {
  for (const int head_dim : {64, 128}) {
    for (const RopeStyle style : {RopeStyle::kHalf, RopeStyle::kInterleaved}) {
      RopeAndStoreKvCall call;
      call.heads = 6;
      call.layout = {.layers = 1, .kv_heads = 2, .head_dim = head_dim, .block_tokens = 32};
      call.style = style;
      const int64_t width = int64_t{call.heads + 4} * head_dim;
      const std::vector<int32_t> positions = {0, 1, 5, 40, 131071, 7};
      const std::vector<int64_t> slots = {5, 64, 127, 0, 33, 96};  // of four blocks
      call.rows = positions.size();
      ModelConfig config;
      config.head_dim = head_dim;
      config.rope_theta = 500000.0;
      const std::vector<double> frequencies = RopeFrequencies(config);
      const std::vector<Bf16> x = RandomBf16(call.rows * width, 9);
      auto qkv = Up(x);
      auto pool = Poisoned<Bf16>(4 * call.layout.slab_elements());
      auto angles = Poisoned<float2>(call.rows * head_dim / 2);
      const auto up_positions = Up(positions);
      const auto up_frequencies = Up(frequencies);
      const auto up_slots = Up(slots);
      LaunchRotationAngles(angles.data(), up_frequencies.data(), up_positions.data(), call.rows,
                           head_dim / 2, stream());
      call.qkv = qkv.data();
      call.slabs = pool.data();
      call.angles = angles.data();
      call.slots = up_slots.data();
      LaunchRopeAndStoreKv(call, stream());
      const std::vector<Bf16> got_qkv = qkv.Read();
      const std::vector<Bf16> got_pool = pool.Read();
      for (int64_t row = 0; row < call.rows; ++row) {
        for (int head = 0; head < call.heads + 4; ++head) {
          const Bf16* from = x.data() + row * width + head * head_dim;
          for (int d = 0; d < head_dim; ++d) {
            double want = F32FromBF16(from[d]);
            if (head < call.heads + 2) {
              const bool half = style == RopeStyle::kHalf;
              const int pair = half ? d % (head_dim / 2) : d / 2;
              const bool second = half ? d >= head_dim / 2 : d % 2 == 1;
              const int other = half ? (d + head_dim / 2) % head_dim : d ^ 1;
              const double angle = positions[row] * frequencies[pair];
              want = want * std::cos(angle) +
                     (second ? 1.0 : -1.0) * F32FromBF16(from[other]) * std::sin(angle);
            }
            const int kv_head = head - call.heads;
            const int64_t block = slots[row] / 32;
            const int64_t at = block * call.layout.slab_elements() +
                               (int64_t{kv_head} * 32 + slots[row] % 32) * head_dim + d;
            const Bf16 got =
                kv_head < 0 ? got_qkv[row * width + head * head_dim + d] : got_pool[at];
            EXPECT_NEAR(F32FromBF16(got), want, std::abs(want) * (0x1p-8 + 1e-5) + 1e-5);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace longhaul
