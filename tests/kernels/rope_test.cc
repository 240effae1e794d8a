#include "kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace longhaul {
namespace {

TEST(RopeTest, PlainFrequencies) {
  ModelConfig config;
  config.head_dim = 8;
  config.rope_theta = 10000.0;
  const std::vector<double> f = RopeFrequencies(config);
  ASSERT_EQ(f.size(), 4u);
  EXPECT_DOUBLE_EQ(f[0], 1.0);
  EXPECT_NEAR(f[1], 0.1, 1e-15);
  EXPECT_NEAR(f[3], 0.001, 1e-15);
}

TEST(RopeTest, Llama3StretchesLongWavelengthsOnly) {
  ModelConfig config;
  config.head_dim = 128;
  config.rope_theta = 500000.0;
  const std::vector<double> plain = RopeFrequencies(config);
  config.rope_scaling.kind = RopeScaling::Kind::kLlama3;
  config.rope_scaling.factor = 8.0;
  const std::vector<double> scaled = RopeFrequencies(config);
  EXPECT_DOUBLE_EQ(scaled[0], plain[0]);
  EXPECT_DOUBLE_EQ(scaled[63], plain[63] / 8.0);
  for (int i = 1; i < 64; ++i) {
    EXPECT_LE(scaled[i], plain[i]);
    EXPECT_GE(scaled[i], plain[i] / 8.0);
    EXPECT_LT(scaled[i], scaled[i - 1]) << "the ramp keeps the order";
  }
}

TEST(RopeTest, LinearScalingAndDivisors) {
  ModelConfig config;
  config.head_dim = 4;
  config.rope_scaling.kind = RopeScaling::Kind::kLinear;
  config.rope_scaling.factor = 4.0;
  config.rope_freq_divisors = {1.0f, 2.0f};
  const std::vector<double> f = RopeFrequencies(config);
  EXPECT_DOUBLE_EQ(f[0], 0.25);
  EXPECT_NEAR(f[1], 0.01 / 8.0, 1e-15);
}

TEST(RopeTest, FarPositionsKeepTheirAngles) {
  const std::vector<double> f = {1.0};
  float cosine;
  float sine;
  RopeAngles(f, 1'000'003, &cosine, &sine);
  EXPECT_NEAR(cosine, std::cos(1000003.0), 1e-6);
  EXPECT_NEAR(sine, std::sin(1000003.0), 1e-6);
}

}  // namespace
}  // namespace longhaul
