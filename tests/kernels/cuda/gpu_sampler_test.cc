// The sampler on the GPU against the one on the host, over the same logits.
#include "kernels/cuda/gpu_sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/sampler.h"
#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/random_data.h"

namespace longhaul {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class GpuSamplerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!CudaDeviceAnswers(0).ok()) GTEST_SKIP() << "no CUDA device";
    device_ = CudaDevice::Open(0, 0.5).value();
    sampler_ = std::make_unique<GpuSampler>(*device_);
  }

  // Each row of logits with each row of params, on both; counts the rows that differ.
  int Differences(const std::vector<float>& logits, int64_t vocab, std::vector<SampleRow> rows) {
    const DeviceArray<float> there(logits);
    const auto got = sampler_->Sample(there.data(), vocab, rows);
    int differences = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto want =
          SampleToken(absl::MakeConstSpan(logits.data() + rows[i].row * vocab, vocab), rows[i]);
      if (!want.ok()) {
        EXPECT_EQ(got[i].status(), want.status());
        continue;
      }
      EXPECT_TRUE(got[i].ok()) << got[i].status();
      if (!got[i].ok()) continue;
      differences += got[i]->token != want->token;
      EXPECT_EQ(got[i]->top_logprobs.size(), want->top_logprobs.size());
      if (got[i]->token == want->token) {
        EXPECT_NEAR(got[i]->logprob, want->logprob, 1e-4);
      }
      for (size_t j = 0; j < want->top_logprobs.size() && j < got[i]->top_logprobs.size(); ++j) {
        EXPECT_EQ(got[i]->top_logprobs[j].first, want->top_logprobs[j].first);
        EXPECT_NEAR(got[i]->top_logprobs[j].second, want->top_logprobs[j].second, 1e-4);
      }
    }
    return differences;
  }

  std::unique_ptr<CudaDevice> device_;
  std::unique_ptr<GpuSampler> sampler_;
};

// Logits as a model makes them (few stand out), flat ones, ones with many ties, and huge ones.
std::vector<float> Logits(int kind, int64_t vocab, uint64_t seed) {
  std::vector<float> logits = RandomFloats(vocab, seed, kind == 3 ? 300.0f : 2.0f);
  for (int64_t i = 0; i < vocab; ++i) {
    if (kind == 0 && i % 97 == static_cast<int64_t>(seed % 97)) logits[i] += 8.0f;
    if (kind == 1) logits[i] *= 1e-3f;
    if (kind == 2) logits[i] = std::round(logits[i] * 2) / 2;
  }
  if (kind == 0) logits[5] = -kInfinity;
  return logits;
}

TEST_F(GpuSamplerTest, TokensAreTheHosts) {
  const std::vector<int32_t> history = {1, 2, 3, 7, 7, 9, 11, 11, 11};
  const std::vector<int32_t> banned = {0, 40};
  std::vector<SamplingParams> all;
  for (const float temperature : {0.0f, 0.3f, 1.0f, 1.7f}) {
    for (const auto& [top_k, top_p, min_p] :
         std::vector<std::tuple<int, float, float>>{{0, 1.0f, 0.0f},
                                                    {0, 1.0f, 0.05f},
                                                    {1, 1.0f, 0.0f},
                                                    {40, 1.0f, 0.0f},
                                                    {1000000, 1.0f, 0.0f},
                                                    {0, 0.9f, 0.0f},
                                                    {0, 0.001f, 0.0f},
                                                    {0, 0.999999f, 0.02f},
                                                    {50, 0.95f, 0.1f}}) {
      for (const bool penalties : {false, true}) {
        SamplingParams& params = all.emplace_back();
        params.temperature = temperature;
        params.top_k = top_k;
        params.top_p = top_p;
        params.min_p = min_p;
        params.seed = all.size();
        params.top_logprobs = static_cast<int32_t>(all.size() % 24) - 1;
        if (penalties) {
          params.repetition_penalty = 1.3f;
          params.presence_penalty = 0.4f;
          params.frequency_penalty = 0.2f;
          params.logit_bias = {{11, 3.0f}, {12, -kInfinity}, {11, 0.5f}};
        }
      }
    }
  }
  int rows_seen = 0;
  int differences = 0;
  for (const int64_t vocab : {33, 1000, 49152, 128256}) {
    for (int kind = 0; kind < 4; ++kind) {
      const std::vector<float> logits = Logits(kind, vocab, 11 + kind);
      std::vector<float> copies;  // a row for each: penalties change it
      std::vector<SampleRow> rows;
      for (const SamplingParams& params : all) {
        SampleRow& row = rows.emplace_back();
        row.row = static_cast<int64_t>(rows.size()) - 1;
        row.params = &params;
        row.output_position = 100 + row.row;
        if (params.repetition_penalty != 1.0f) {
          row.history = history;
          row.history_prompt_tokens = 4;
          if (vocab > 40) row.banned = banned;
        }
        copies.insert(copies.end(), logits.begin(), logits.end());
      }
      differences += Differences(copies, vocab, rows);
      rows_seen += static_cast<int>(rows.size());
    }
  }
  // They may differ where a draw falls on an edge to within 2^-26: one in millions of draws.
  EXPECT_EQ(differences, 0) << "of " << rows_seen;
}

TEST_F(GpuSamplerTest, ErrorsAreTheHosts) {
  SamplingParams params;
  SamplingParams bad;
  bad.top_p = 0.0f;
  SamplingParams nothing;
  nothing.logit_bias = {{0, -kInfinity}, {1, -kInfinity}, {2, -kInfinity}};
  const std::vector<float> logits = {1.0f, std::nanf(""), 0.0f, 1.0f, kInfinity, 0.0f,
                                     1.0f, 2.0f,          3.0f, 4.0f, 5.0f,      6.0f};
  std::vector<SampleRow> rows(5);
  for (SampleRow& row : rows) row.params = &params;
  rows[1].row = 1;
  rows[2].row = 2;
  rows[2].params = &bad;
  rows[3].row = 3;
  rows[3].params = &nothing;
  rows[4].row = 2;
  EXPECT_EQ(Differences(logits, 3, rows), 0);
}

}  // namespace
}  // namespace longhaul
