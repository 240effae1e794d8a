// The sampler: distributions by chi-square with fixed seeds, cuts, penalties, and its errors.
#include "kernels/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>

namespace longhaul {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

SampledToken Sample(const std::vector<float>& logits, const SamplingParams& params,
                    int64_t position = 0, std::vector<int32_t> history = {},
                    int64_t history_prompt_tokens = 0, std::vector<int32_t> banned = {}) {
  SampleRow row;
  row.params = &params;
  row.output_position = position;
  row.history = history;
  row.history_prompt_tokens = history_prompt_tokens;
  row.banned = banned;
  return SampleToken(logits, row).value();
}

std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double total = 0;
  for (const float logit : logits) total += p.emplace_back(std::exp(logit / temperature));
  for (double& v : p) v /= total;
  return p;
}

// Draws at many positions; the chi-square statistic against `p`, 0 where p is 0 and never drawn.
double ChiSquare(const std::vector<float>& logits, const SamplingParams& params,
                 const std::vector<double>& p, int draws) {
  std::vector<int> seen(p.size());
  for (int i = 0; i < draws; ++i) ++seen[Sample(logits, params, i).token];
  double chi = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0) {
      EXPECT_EQ(seen[i], 0) << "token " << i << " was cut but drawn";
      continue;
    }
    chi += (seen[i] - draws * p[i]) * (seen[i] - draws * p[i]) / (draws * p[i]);
  }
  return chi;
}

// Zeroes what is not in `keep` and renormalises.
std::vector<double> Only(std::vector<double> p, const std::vector<int>& keep) {
  std::vector<double> kept(p.size());
  double total = 0;
  for (const int i : keep) total += p[i];
  for (const int i : keep) kept[i] = p[i] / total;
  return kept;
}

const std::vector<float> kLogits = {1.0f, 3.0f, -1.0f, 2.5f, 0.0f, 2.0f, -4.0f, 1.5f};
// 99.9% of draws stay below these for 7 and fewer degrees of freedom.
constexpr double kChi7 = 24.3;
constexpr int kDraws = 20000;

TEST(SamplerTest, TemperatureScalesTheDistribution) {
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    SamplingParams params;
    params.seed = 42;
    params.temperature = temperature;
    EXPECT_LT(ChiSquare(kLogits, params, Softmax(kLogits, temperature), kDraws), kChi7);
  }
}

TEST(SamplerTest, CutsKeepTheMostLikely) {
  const std::vector<double> p = Softmax(kLogits, 1.0);
  SamplingParams params;
  params.seed = 7;
  params.top_k = 3;
  EXPECT_LT(ChiSquare(kLogits, params, Only(p, {1, 3, 5}), kDraws), kChi7);
  params.top_k = 0;
  params.top_p = static_cast<float>(p[1] + p[3] + 0.5 * p[5]);  // needs the third
  EXPECT_LT(ChiSquare(kLogits, params, Only(p, {1, 3, 5}), kDraws), kChi7);
  params.top_p = 1.0f;
  params.min_p = static_cast<float>(p[7] / p[1] * 0.99);
  EXPECT_LT(ChiSquare(kLogits, params, Only(p, {1, 3, 5, 7}), kDraws), kChi7);
  params.top_k = 6;
  params.min_p = static_cast<float>(p[3] / p[1] * 0.99);
  EXPECT_LT(ChiSquare(kLogits, params, Only(p, {1, 3}), kDraws), kChi7);
  // top_p is over what top_k left.
  params = {};
  params.top_k = 2;
  params.top_p = static_cast<float>(p[1] / (p[1] + p[3]) * 0.99);
  EXPECT_LT(ChiSquare(kLogits, params, Only(p, {1}), 1000), 1e-9);
}

TEST(SamplerTest, ALargeVocabularyIsRankedAsFarAsNeeded) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> logits(50000);
  for (float& logit : logits) logit = normal(random);
  SamplingParams params;
  params.top_p = 0.9f;
  // The fewest tokens that reach the mass, counted plainly.
  std::vector<double> p = Softmax(logits, 1.0);
  std::vector<double> sorted = p;
  std::sort(sorted.rbegin(), sorted.rend());
  double sum = 0;
  double least = 0;
  for (const double v : sorted) {
    least = v;
    if ((sum += v) >= 0.9) break;
  }
  for (int i = 0; i < 50; ++i) {
    EXPECT_GE(p[Sample(logits, params, i).token], least * 0.999);
  }
}

TEST(SamplerTest, GreedyTakesTheLowestIdAmongEquals) {
  SamplingParams params;
  params.temperature = 0.0f;
  EXPECT_EQ(Sample({1.0f, 5.0f, 5.0f, 2.0f}, params).token, 1);
}

TEST(SamplerTest, TinyTemperatureIsGreedy) {
  SamplingParams params;
  params.temperature = 1e-40f;
  EXPECT_EQ(Sample(kLogits, params).token, 1);
}

TEST(SamplerTest, TheDrawDependsOnSeedAndPositionOnly) {
  SamplingParams params;
  params.seed = 1;
  std::map<int32_t, int> differs;
  for (int i = 0; i < 64; ++i) {
    const int32_t token = Sample(kLogits, params, i).token;
    EXPECT_EQ(Sample(kLogits, params, i).token, token);
    ++differs[token];
  }
  EXPECT_GT(differs.size(), 2u);
  SamplingParams other = params;
  other.seed = 2;
  int same = 0;
  for (int i = 0; i < 64; ++i) {
    same += Sample(kLogits, params, i).token == Sample(kLogits, other, i).token;
  }
  EXPECT_LT(same, 50);
}

TEST(SamplerTest, PenaltiesBiasAndBans) {
  SamplingParams params;
  params.temperature = 0.0f;
  params.repetition_penalty = 2.0f;
  EXPECT_EQ(Sample(kLogits, params, 0, {1}, 1).token, 3) << "the prompt counts";
  EXPECT_EQ(Sample({-1.0f, -1.5f}, params, 0, {0}, 0).token, 1) << "negative logits sink too";
  params = {};
  params.temperature = 0.0f;
  params.presence_penalty = 0.6f;
  EXPECT_EQ(Sample(kLogits, params, 0, {1}, 0).token, 3);
  EXPECT_EQ(Sample(kLogits, params, 0, {1}, 1).token, 1) << "the prompt does not count";
  params.presence_penalty = 0.0f;
  params.frequency_penalty = 0.3f;
  EXPECT_EQ(Sample(kLogits, params, 0, {1}, 0).token, 1);
  EXPECT_EQ(Sample(kLogits, params, 0, {1, 1}, 0).token, 3);
  params = {};
  params.temperature = 0.0f;
  params.logit_bias = {{6, 100.0f}, {1, -kInfinity}};
  EXPECT_EQ(Sample(kLogits, params).token, 6);
  EXPECT_EQ(Sample(kLogits, params, 0, {}, 0, {6}).token, 3);
}

TEST(SamplerTest, LogprobsAreOfTheRawDistribution) {
  SamplingParams params;
  params.temperature = 0.0f;
  params.logit_bias = {{4, 100.0f}};
  params.top_logprobs = 3;
  const std::vector<double> p = Softmax(kLogits, 1.0);
  const SampledToken sampled = Sample(kLogits, params);
  EXPECT_EQ(sampled.token, 4);
  EXPECT_NEAR(sampled.logprob, std::log(p[4]), 1e-5);
  ASSERT_EQ(sampled.top_logprobs.size(), 3u);
  const int want[] = {1, 3, 5};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(sampled.top_logprobs[i].first, want[i]);
    EXPECT_NEAR(sampled.top_logprobs[i].second, std::log(p[want[i]]), 1e-5);
  }
}

TEST(SamplerTest, ErrorsInsteadOfTokens) {
  SamplingParams params;
  SampleRow row;
  row.params = &params;
  const auto code = [&](const std::vector<float>& logits) {
    return SampleToken(logits, row).status().code();
  };
  EXPECT_EQ(code({1.0f, std::nanf(""), 0.0f}), absl::StatusCode::kInternal);
  EXPECT_EQ(code({1.0f, kInfinity, 0.0f}), absl::StatusCode::kInternal);
  EXPECT_EQ(code({-kInfinity, -kInfinity}), absl::StatusCode::kFailedPrecondition);
  const std::vector<int32_t> all = {0, 1};
  row.banned = all;
  EXPECT_EQ(code({1.0f, 2.0f}), absl::StatusCode::kFailedPrecondition);
  const std::vector<int32_t> outside = {2};
  row.banned = outside;
  EXPECT_EQ(code({1.0f, 2.0f}), absl::StatusCode::kInvalidArgument);
  row.banned = {};
  params.top_p = 0.0f;
  EXPECT_EQ(code({1.0f, 2.0f}), absl::StatusCode::kInvalidArgument);
  params = {};
  params.temperature = std::nanf("");
  EXPECT_EQ(code({1.0f, 2.0f}), absl::StatusCode::kInvalidArgument);
  params = {};
  params.logit_bias = {{-1, 1.0f}};
  EXPECT_EQ(code({1.0f, 2.0f}), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace longhaul
