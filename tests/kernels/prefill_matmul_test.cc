// Prefill's matrix products against float64, and bit for bit, that a row's result depends on
// neither the rows beside it nor the threads.
#include "kernels/cpu/prefill_matmul.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/model/dequantize.h"
#include "tests/kernels/random_data.h"

namespace longhaul {
namespace {

class PrefillMatMulTest : public testing::TestWithParam<CpuIsa> {
 protected:
  const CpuKernels& kernels_ = KernelsFor(GetParam());
  bool bf16() const { return GetParam() >= CpuIsa::kAvx512Bf16; }
};

TEST_P(PrefillMatMulTest, EveryTypeAgainstFloat64) {
  ThreadPool pool(2);
  PrefillMatMul matmul(kernels_, pool);
  for (const DType dtype : kWeightTypes) {
    const int64_t k = BlockElements(dtype) == 256 ? 512 : 96;
    const RandomWeight first = MakeRandomWeight(dtype, 70, k, 1);
    const RandomWeight second = MakeRandomWeight(dtype, 29, k, 2);
    const int64_t n = 99;
    const auto matrix = matmul.Pack({first.view, second.view});
    for (const int64_t rows : {1, 64, 67}) {
      const std::vector<float> x = RandomFloats(rows * k, rows);
      for (const bool accumulate : {false, true}) {
        const std::vector<float> before = RandomFloats(rows * n, 3);
        std::vector<float> out = before;
        matmul.Run(out.data(), x.data(), rows, *matrix, accumulate);
        std::vector<float> weight(k);
        for (int64_t j = 0; j < n; ++j) {
          if (j < 70) DequantizeRow(first.view, j, weight.data());
          if (j >= 70) DequantizeRow(second.view, j - 70, weight.data());
          for (int64_t r = 0; r < rows; ++r) {
            double want = accumulate ? before[r * n + j] : 0.0;
            double magnitude = 0.1;
            for (int64_t i = 0; i < k; ++i) {
              const float a = bf16() ? F32FromBF16(BF16FromF32(x[r * k + i])) : x[r * k + i];
              const float b = bf16() ? F32FromBF16(BF16FromF32(weight[i])) : weight[i];
              want += double{a} * b;
              magnitude += std::abs(double{a} * b);
            }
            // The operands' rounding is in `want`; a weight's own float32 rounding may tip it.
            ASSERT_NEAR(out[r * n + j], want, (bf16() ? 2e-4 : 2e-6) * magnitude)
                << DTypeName(dtype) << " row " << r << " column " << j;
          }
        }
      }
    }
  }
}

TEST_P(PrefillMatMulTest, ARowDependsOnNeitherItsNeighboursNorTheThreads) {
  constexpr int64_t kRows = 300;
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{960, 576}, {3072, 576}, {576, 1536}}) {
    const RandomWeight weight = MakeRandomWeight(DType::kQ4_1, n, k, 4);
    const std::vector<float> x = RandomFloats(kRows * k, 5);
    const std::vector<float> before = RandomFloats(kRows * n, 6);
    std::vector<float> whole;
    for (const int threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      PrefillMatMul matmul(kernels_, pool);
      const auto matrix = matmul.Pack({weight.view});
      std::vector<float> out = before;
      matmul.Run(out.data(), x.data(), kRows, *matrix, true);
      if (threads == 1) whole = out;
      ASSERT_EQ(out, whole) << threads << " threads";
      for (const int64_t chunk : {1, 37, 256}) {
        for (int64_t first = 0; first < kRows; first += chunk) {
          const int64_t rows = std::min(chunk, kRows - first);
          std::vector<float> part(before.begin() + first * n, before.begin() + (first + rows) * n);
          matmul.Run(part.data(), x.data() + first * k, rows, *matrix, true);
          ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first * n))
              << "rows from " << first << " by " << chunk;
          if (chunk == 1 && first > 70) break;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, PrefillMatMulTest, testing::ValuesIn(LevelsHere()),
                         [](const auto& info) { return std::string(CpuIsaName(info.param)); });

}  // namespace
}  // namespace longhaul
