// Seeded random inputs for kernel tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "common/model/half.h"
#include "common/model/weights.h"
#include "kernels/cpu/cpu_isa.h"

namespace longhaul {

inline std::vector<float> RandomFloats(int64_t count, uint64_t seed, float deviation = 1.0f) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// A weight matrix of any type and its bytes: random integers, scales around 0.02 of either sign.
struct RandomWeight {
  std::vector<std::byte> bytes;
  WeightView view;
};

inline RandomWeight MakeRandomWeight(DType dtype, int64_t rows, int64_t cols, uint64_t seed) {
  std::mt19937_64 random(seed);
  RandomWeight weight;
  weight.bytes.resize(rows * RowBytes(dtype, cols));
  const auto half_near_scale = [&] {
    return static_cast<uint16_t>(0x2400 + random() % 0x400 + (random() % 2) * 0x8000);
  };
  if (BlockElements(dtype) == 1) {
    const std::vector<float> values = RandomFloats(rows * cols, seed, 0.05f);
    for (int64_t i = 0; i < rows * cols; ++i) {
      uint16_t bits = BF16FromF32(values[i]);
      if (dtype == DType::kF16) bits = half_near_scale();
      if (dtype == DType::kF32) {
        std::memcpy(weight.bytes.data() + i * 4, &values[i], 4);
      } else {
        std::memcpy(weight.bytes.data() + i * 2, &bits, 2);
      }
    }
  } else {
    for (std::byte& byte : weight.bytes) byte = static_cast<std::byte>(random());
    const bool two_halves = dtype == DType::kQ4_1 || dtype == DType::kQ5_1 ||
                            dtype == DType::kQ4_K || dtype == DType::kQ5_K;
    const int64_t first_half = dtype == DType::kQ6_K ? BlockBytes(dtype) - 2 : 0;
    for (size_t block = 0; block < weight.bytes.size(); block += BlockBytes(dtype)) {
      for (int half = 0; half < (two_halves ? 2 : 1); ++half) {
        const uint16_t bits = half_near_scale();
        std::memcpy(weight.bytes.data() + block + first_half + 2 * half, &bits, 2);
      }
    }
  }
  weight.view = {weight.bytes.data(), dtype, rows, cols};
  return weight;
}

inline constexpr DType kWeightTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                                         DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// The levels with kernels of their own that this machine can run.
inline std::vector<CpuIsa> LevelsHere() {
  std::vector<CpuIsa> levels;
  for (const CpuIsa isa : {CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    if (isa <= DetectCpuIsa().value()) levels.push_back(isa);
  }
  return levels;
}

}  // namespace longhaul
