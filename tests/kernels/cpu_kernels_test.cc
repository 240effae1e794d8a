// Elementwise kernels and decode dot products of every level against float64.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/model/dequantize.h"
#include "kernels/cpu/kernel_table.h"
#include "tests/kernels/random_data.h"

namespace longhaul {
namespace {

class CpuKernelsTest : public testing::TestWithParam<CpuIsa> {
 protected:
  const CpuKernels& kernels_ = KernelsFor(GetParam());
};

TEST_P(CpuKernelsTest, RmsNorm) {
  for (const int64_t width : {5, 16, 64, 100, 576, 4096}) {
    const std::vector<float> x = RandomFloats(width, width, 3.0f);
    const std::vector<float> weight = RandomFloats(width, width + 1);
    std::vector<float> out(width);
    kernels_.rms_norm(out.data(), x.data(), weight.data(), width, 1e-5f);
    double squares = 0;
    for (const float v : x) squares += double{v} * v;
    const double scale = 1.0 / std::sqrt(squares / width + 1e-5);
    for (int64_t i = 0; i < width; ++i) {
      EXPECT_NEAR(out[i], x[i] * scale * weight[i], 1e-5) << width << " " << i;
    }
  }
}

TEST_P(CpuKernelsTest, GatedIsSiluTimesUp) {
  for (const int64_t n : {1, 16, 33, 1536}) {
    std::vector<float> gate = RandomFloats(n, n, 6.0f);
    gate[0] = -200.0f;
    if (n > 2) gate[1] = 200.0f;
    const std::vector<float> up = RandomFloats(n, n + 1);
    std::vector<float> out(n);
    kernels_.gated(out.data(), gate.data(), up.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      const double want = gate[i] / (1.0 + std::exp(-double{gate[i]})) * up[i];
      EXPECT_NEAR(out[i], want, 1e-6 * std::abs(want) + 1e-7) << gate[i];
    }
  }
}

TEST_P(CpuKernelsTest, NotANumberStays) {
  const float nan = std::nanf("");
  const std::vector<float> gate(16, nan);
  const std::vector<float> up(16, 1.0f);
  std::vector<float> out(16);
  kernels_.gated(out.data(), gate.data(), up.data(), 16);
  for (const float v : out) EXPECT_TRUE(std::isnan(v));
}

TEST_P(CpuKernelsTest, RotateTurnsPairs) {
  for (const bool interleaved : {false, true}) {
    const int pairs = 32;
    const std::vector<float> head = RandomFloats(2 * pairs, 7);
    std::vector<float> cosines(pairs);
    std::vector<float> sines(pairs);
    for (int i = 0; i < pairs; ++i) {
      cosines[i] = std::cos(0.37f * i);
      sines[i] = std::sin(0.37f * i);
    }
    std::vector<float> rotated = head;
    kernels_.rotate(rotated.data(), cosines.data(), sines.data(), pairs, interleaved);
    for (int i = 0; i < pairs; ++i) {
      const int first = interleaved ? 2 * i : i;
      const int second = interleaved ? 2 * i + 1 : i + pairs;
      EXPECT_NEAR(rotated[first], head[first] * cosines[i] - head[second] * sines[i], 1e-6);
      EXPECT_NEAR(rotated[second], head[first] * sines[i] + head[second] * cosines[i], 1e-6);
    }
  }
}

TEST_P(CpuKernelsTest, RoundToBf16IsNearestEven) {
  std::vector<float> x = RandomFloats(1003, 3, 10.0f);
  x[0] = 0.0f;
  x[1] = -0.0f;
  x[2] = 1.00390625f;  // half way, down to even
  x[3] = 1.01171875f;  // half way, up to even
  std::vector<uint16_t> out(x.size());
  kernels_.round_to_bf16(out.data(), x.data(), x.size());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(out[i], BF16FromF32(x[i])) << x[i];
}

TEST_P(CpuKernelsTest, DequantizeEveryType) {
  for (const DType dtype : kWeightTypes) {
    const int64_t cols = BlockElements(dtype) == 1 ? 83 : 3 * BlockElements(dtype);
    const RandomWeight weight = MakeRandomWeight(dtype, 4, cols, 11);
    for (int64_t row = 0; row < 4; ++row) {
      std::vector<float> want(cols);
      std::vector<float> got(cols);
      DequantizeRow(weight.view, row, want.data());
      kernels_.dequantize(dtype, weight.bytes.data() + row * RowBytes(dtype, cols), cols,
                          got.data());
      for (int64_t i = 0; i < cols; ++i) {
        EXPECT_NEAR(got[i], want[i], 1e-6 * std::abs(want[i]) + 1e-7) << DTypeName(dtype);
      }
    }
  }
}

// Packed activations of `rows` rows, aligned.
class Packed {
 public:
  Packed(const CpuKernels& kernels, DType dtype, const std::vector<float>& x, int64_t rows,
         int64_t cols) {
    const int64_t bytes = kernels.packed_row_bytes(dtype, cols);
    EXPECT_EQ(bytes % 64, 0);
    memory_.resize(rows * bytes + 64);
    data_ = memory_.data() + (-reinterpret_cast<uintptr_t>(memory_.data()) & 63);
    for (int64_t r = 0; r < rows; ++r) {
      kernels.pack_row(dtype, x.data() + r * cols, cols, data_ + r * bytes);
    }
  }
  const std::byte* data() const { return data_; }

 private:
  std::vector<std::byte> memory_;
  std::byte* data_;
};

TEST_P(CpuKernelsTest, DotRowsOfEveryTypeAgainstFloat64) {
  constexpr int64_t kWeightRows = 37;
  for (const DType dtype : kWeightTypes) {
    for (const int64_t blocks : {1, 2, 3, 18}) {
      const int64_t cols = blocks * std::max<int64_t>(BlockElements(dtype), 32);
      const RandomWeight weight = MakeRandomWeight(dtype, kWeightRows, cols, 5 + blocks);
      for (const int64_t rows : {1, 2, 7}) {
        const std::vector<float> x = RandomFloats(rows * cols, rows);
        const Packed packed(kernels_, dtype, x, rows, cols);
        const std::vector<float> before = RandomFloats(rows * kWeightRows, 99);
        for (const bool accumulate : {false, true}) {
          std::vector<float> out = before;
          std::vector<float> scratch(cols + 64);
          // In two parts, as two threads would.
          for (const auto& [first, end] : {std::pair<int64_t, int64_t>{0, 19}, {19, kWeightRows}}) {
            kernels_.dot_rows({weight.bytes.data(), RowBytes(dtype, cols), cols, first, end, dtype},
                              packed.data(), rows, out.data(), kWeightRows, accumulate,
                              scratch.data());
          }
          std::vector<float> row(cols);
          for (int64_t w = 0; w < kWeightRows; ++w) {
            DequantizeRow(weight.view, w, row.data());
            for (int64_t r = 0; r < rows; ++r) {
              double want = accumulate ? before[r * kWeightRows + w] : 0.0;
              double magnitude = 0.1;
              for (int64_t i = 0; i < cols; ++i) {
                want += double{row[i]} * x[r * cols + i];
                magnitude += std::abs(double{row[i]} * x[r * cols + i]);
              }
              // 16-bit activations: each is off by at most 2^-16 of its block's largest.
              EXPECT_NEAR(out[r * kWeightRows + w], want, 2e-5 * magnitude)
                  << DTypeName(dtype) << " cols " << cols << " rows " << rows;
            }
          }
        }
      }
    }
  }
}

TEST_P(CpuKernelsTest, ARowsDotProductsDoNotDependOnTheBatch) {
  constexpr int64_t kWeightRows = 21;
  constexpr int64_t kRows = 32;
  for (const DType dtype : kWeightTypes) {
    const int64_t cols = BlockElements(dtype) == 256 ? 768 : 576;
    const RandomWeight weight = MakeRandomWeight(dtype, kWeightRows, cols, 8);
    const std::vector<float> x = RandomFloats(kRows * cols, 9);
    const auto dots = [&](int64_t first, int64_t rows) {
      const std::vector<float> part(x.begin() + first * cols, x.begin() + (first + rows) * cols);
      const Packed packed(kernels_, dtype, part, rows, cols);
      std::vector<float> out(rows * kWeightRows);
      std::vector<float> scratch(cols + 64);
      kernels_.dot_rows({weight.bytes.data(), RowBytes(dtype, cols), cols, 0, kWeightRows, dtype},
                        packed.data(), rows, out.data(), kWeightRows, false, scratch.data());
      return out;
    };
    const std::vector<float> all = dots(0, kRows);
    for (int64_t r = 0; r < kRows; ++r) {
      const std::vector<float> alone = dots(r, 1);
      EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + r * kWeightRows))
          << DTypeName(dtype) << " row " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, CpuKernelsTest, testing::ValuesIn(LevelsHere()),
                         [](const auto& info) { return std::string(CpuIsaName(info.param)); });

TEST(CpuIsaTest, NamesGoBothWays) {
  for (const CpuIsa isa : {CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16, CpuIsa::kAmx}) {
    EXPECT_EQ(ParseCpuIsa(CpuIsaName(isa)).value(), isa);
  }
  const absl::Status status = ParseCpuIsa("sse").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("avx512_bf16"));
}

}  // namespace
}  // namespace longhaul
