#include "common/engine/cost_model.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace longhaul {
namespace {

double Truth(int64_t n, int64_t p) {
  return 500.0 + 40.0 * static_cast<double>(n) +
         0.003 * static_cast<double>(n) * (static_cast<double>(p) + static_cast<double>(n) / 2);
}

TEST(CostModel, UsableBeforeAnySample) {
  const CostModel model;
  EXPECT_EQ(model.PrefillUs(0, 0), 0);
  EXPECT_EQ(model.DecodeStepUs(0, 0), 0);
  EXPECT_GT(model.PrefillUs(1, 0), 0);
  EXPECT_GT(model.PrefillUs(512, 100000), model.PrefillUs(512, 0));
  EXPECT_GT(model.DecodeStepUs(2, 100), model.DecodeStepUs(1, 100));
}

TEST(CostModel, RecoversTheCoefficientsOfExactSamples) {
  CostModel model;
  for (int round = 0; round < 20; ++round) {
    for (const int64_t n : {16, 64, 256, 512}) {
      for (const int64_t p : {0, 1000, 30000, 500000}) model.Observe(n, p, Truth(n, p));
    }
  }
  for (const int64_t n : {32, 1024}) {
    for (const int64_t p : {0, 8000, 1000000}) {
      EXPECT_NEAR(model.PrefillUs(n, p) / Truth(n, p), 1.0, 0.02) << n << " at " << p;
    }
  }
  for (int round = 0; round < 20; ++round) {
    for (const int64_t rows : {1, 4, 16}) {
      for (const int64_t context : {100, 5000, 90000}) {
        model.ObserveDecode(rows, context, 900.0 + 30.0 * rows + 0.01 * context);
      }
    }
  }
  EXPECT_NEAR(model.DecodeStepUs(8, 20000) / (900 + 240 + 200), 1.0, 0.02);
}

TEST(CostModel, OneSampleFixesTheScale) {
  CostModel model;
  const double before_us = model.PrefillUs(512, 0);
  model.Observe(512, 0, before_us / 1000);
  EXPECT_NEAR(model.PrefillUs(512, 0) / (before_us / 1000), 1.0, 0.01);
  EXPECT_LT(model.PrefillUs(64, 4096), before_us / 100);
}

TEST(CostModel, NeverNegativeWhateverIsMeasured) {
  CostModel model;
  model.Observe(512, 0, 1000);
  model.Observe(512, 100000, 10);  // faster at a later position: attention cannot cost less than 0
  model.Observe(1, 0, 900000);
  model.Observe(100, 0, -5);
  model.Observe(100, 0, std::numeric_limits<double>::quiet_NaN());
  for (const double coefficient : model.coefficients()) {
    EXPECT_GE(coefficient, 0);
    EXPECT_TRUE(std::isfinite(coefficient));
  }
  EXPECT_GT(model.PrefillUs(512, 0), 0);
}

TEST(CostModel, FollowsAChangeOfSpeed) {
  CostModel model;
  for (int i = 0; i < 500; ++i) model.Observe(256, 1000 * (i % 8), Truth(256, 1000 * (i % 8)));
  for (int i = 0; i < 2000; ++i) model.Observe(256, 1000 * (i % 8), 3 * Truth(256, 1000 * (i % 8)));
  EXPECT_NEAR(model.PrefillUs(256, 3500) / (3 * Truth(256, 3500)), 1.0, 0.02);
}

TEST(CostModel, CoefficientsTravelAndBadOnesAreRefused) {
  CostModel model;
  for (int i = 1; i < 50; ++i) model.Observe(i * 10, i * 100, Truth(i * 10, i * 100));
  const auto same = CostModel::FromCoefficients(model.coefficients());
  EXPECT_DOUBLE_EQ(same.PrefillUs(300, 7000), model.PrefillUs(300, 7000));
  const CostModel fresh;
  for (const std::vector<double>& bad :
       {std::vector<double>{},
        {1, 2, 3},
        {-1, 2, 3, 0, 0, 0},
        {0, 0, 0, 0, 0, 0},
        {std::numeric_limits<double>::infinity(), 1, 1, 1, 1, -1}}) {
    EXPECT_EQ(CostModel::FromCoefficients(bad).PrefillUs(10, 10), fresh.PrefillUs(10, 10));
  }
}

TEST(CostModel, ChunksShrinkWithPositionAndTakeTheTarget) {
  const CostModel model = CostModel::FromCoefficients({500, 40, 0.003, 1, 1, 1});
  const double target_us = 30000;
  int64_t previous = 1 << 20;
  for (const int64_t position : {0, 1000, 10000, 100000, 500000}) {
    const int64_t tokens = model.ChunkTokens(position, target_us, 1 << 20, 16);
    EXPECT_EQ(tokens % 16, 0);
    EXPECT_LE(tokens, previous);
    EXPECT_LE(model.PrefillUs(tokens, position), target_us);
    EXPECT_GT(model.PrefillUs(tokens + 16, position), target_us);
    previous = tokens;
  }
  EXPECT_EQ(model.ChunkTokens(0, target_us, 100, 16), 96);
  EXPECT_EQ(model.ChunkTokens(0, 1, 100, 16), 16);        // never nothing
  EXPECT_EQ(model.ChunkTokens(0, target_us, 3, 16), 16);  // nor less than a multiple
  EXPECT_EQ(CostModel::FromCoefficients({5, 0, 0, 1, 1, 1}).ChunkTokens(9, 10, 64, 16), 64);
}

}  // namespace
}  // namespace longhaul
