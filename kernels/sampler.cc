#include "kernels/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// exp(x) for x <= 0 within two units in the last place; 0 below -87. Branch-free, so that it
// vectorises: 2^n * e^r with |r| <= ln2/2 and e^r by its Taylor polynomial of degree 6.
inline float ExpNonPositive(float x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x < -87.0f ? -87.0f : x;
  const float n = (clamped * kLog2E + kRoundMagic) - kRoundMagic;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float p = 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float scale = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return x < -87.0f ? 0.0f : p * scale;
}

absl::Status CheckToken(const char* where, int32_t token, int64_t vocab) {
  if (token >= 0 && token < vocab) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(where, " names token ", token, "; the model's tokens are 0 to ", vocab - 1));
}

absl::Status CheckParams(const SamplingParams& params) {
  const auto bad = [](const char* name, double value, const char* valid) {
    return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, "; it must be ", valid));
  };
  if (!(params.temperature >= 0.0f && params.temperature < kInfinity)) {
    return bad("temperature", params.temperature, "a number >= 0");
  }
  if (!(params.top_p > 0.0f && params.top_p <= 1.0f)) {
    return bad("top_p", params.top_p, "in (0, 1]");
  }
  if (params.top_k < 0) return bad("top_k", params.top_k, ">= 0");
  if (!(params.min_p >= 0.0f && params.min_p <= 1.0f)) {
    return bad("min_p", params.min_p, "in [0, 1]");
  }
  if (!(params.repetition_penalty > 0.0f && params.repetition_penalty < kInfinity)) {
    return bad("repetition_penalty", params.repetition_penalty, "> 0");
  }
  if (!std::isfinite(params.presence_penalty)) {
    return bad("presence_penalty", params.presence_penalty, "finite");
  }
  if (!std::isfinite(params.frequency_penalty)) {
    return bad("frequency_penalty", params.frequency_penalty, "finite");
  }
  return absl::OkStatus();
}

// Neither NaN nor +inf. One pass that vectorises: NaN fails every comparison.
bool AllBelowInfinity(absl::Span<const float> logits) {
  int bad = 0;
  for (const float logit : logits) bad |= !(logit < kInfinity);
  return bad == 0;
}

int32_t ArgMax(absl::Span<const float> logits) {
  float best = -kInfinity;
  for (const float logit : logits) best = logit > best ? logit : best;
  // The lowest id among equals.
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), best) - logits.begin());
}

bool ChangesLogits(const SampleRow& row) {
  const SamplingParams& params = *row.params;
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
         params.frequency_penalty != 0.0f || !params.logit_bias.empty() || !row.banned.empty();
}

void ChangeLogits(const SampleRow& row, absl::Span<float> logits) {
  const SamplingParams& params = *row.params;
  struct Uses {
    int64_t output = 0;
  };
  absl::flat_hash_map<int32_t, Uses> uses;
  for (size_t i = 0; i < row.history.size(); ++i) {
    Uses& use = uses[row.history[i]];
    if (static_cast<int64_t>(i) >= row.history_prompt_tokens) ++use.output;
  }
  for (const auto& [token, use] : uses) {
    float& logit = logits[token];
    logit = logit > 0.0f ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (use.output > 0) {
      logit -= params.presence_penalty + params.frequency_penalty * static_cast<float>(use.output);
    }
  }
  for (const auto& [token, bias] : params.logit_bias) logits[token] += bias;
  for (const int32_t token : row.banned) logits[token] = -kInfinity;
}

// Token ids by descending logit, as many as asked for: the part of a full sort that is needed.
class Ranking {
 public:
  explicit Ranking(absl::Span<const float> logits) : logits_(logits), ids_(logits.size()) {
    std::iota(ids_.begin(), ids_.end(), 0);
  }
  int32_t At(size_t rank) {
    while (rank >= sorted_) Extend();
    return ids_[rank];
  }

 private:
  void Extend() {
    const size_t more = std::min(ids_.size(), std::max<size_t>(64, sorted_ * 4));
    const auto before = [this](int32_t a, int32_t b) {
      return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b;
    };
    if (more < ids_.size()) {
      std::nth_element(ids_.begin() + sorted_, ids_.begin() + more, ids_.end(), before);
    }
    std::sort(ids_.begin() + sorted_, ids_.begin() + more, before);
    sorted_ = more;
  }

  absl::Span<const float> logits_;
  std::vector<int32_t> ids_;
  size_t sorted_ = 0;
};

// weights[i] = exp((logits[i] - best) / temperature); returns their sum.
double Exponentials(absl::Span<const float> logits, float best, float temperature, float* weights) {
  for (size_t i = 0; i < logits.size(); ++i) {
    weights[i] = ExpNonPositive((logits[i] - best) / temperature);
  }
  double total = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) total += weights[i];
  return total;
}

// The draw among all tokens that min_p leaves, in order of id.
int32_t DrawFromAll(absl::Span<const float> weights, double total, float min_p, double uniform) {
  if (min_p > 0.0f) {
    total = 0.0;
    for (const float weight : weights) total += weight >= min_p ? weight : 0.0f;
  }
  const double target = uniform * total;
  double sum = 0.0;
  int32_t last = -1;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] < min_p || weights[i] == 0.0f) continue;
    sum += weights[i];
    last = static_cast<int32_t>(i);
    if (sum > target) break;
  }
  return last;  // rounding may leave the sum a hair below the target: then the last candidate
}

// The draw among the most likely tokens that top_k, top_p and min_p leave, in order of rank.
int32_t DrawFromTop(absl::Span<const float> logits, absl::Span<const float> weights, double total,
                    const SamplingParams& params, double uniform) {
  Ranking ranking(logits);
  size_t count = logits.size();
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < count) {
    count = static_cast<size_t>(params.top_k);
    total = 0.0;
    for (size_t i = 0; i < count; ++i) total += weights[ranking.At(i)];
  }
  // top_p keeps the fewest tokens whose mass reaches it.
  const double mass = params.top_p * total;
  std::vector<double> sums;
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const float weight = weights[ranking.At(i)];
    if (i > 0 && (weight < params.min_p || weight == 0.0f)) break;
    sum += weight;
    sums.push_back(sum);
    if (params.top_p < 1.0f && sum >= mass) break;
  }
  const size_t rank = std::upper_bound(sums.begin(), sums.end(), uniform * sum) - sums.begin();
  return ranking.At(std::min(rank, sums.size() - 1));
}

void SetLogprobs(absl::Span<const float> logits, int32_t top, std::vector<float>& scratch,
                 SampledToken& sampled) {
  const float best = logits[ArgMax(logits)];
  scratch.resize(logits.size());
  const double log_total = std::log(Exponentials(logits, best, 1.0f, scratch.data())) + best;
  sampled.logprob = static_cast<float>(logits[sampled.token] - log_total);
  if (top <= 0) return;
  Ranking ranking(logits);
  for (size_t i = 0; i < std::min<size_t>(top, logits.size()); ++i) {
    const int32_t token = ranking.At(i);
    sampled.top_logprobs.emplace_back(token, static_cast<float>(logits[token] - log_total));
  }
}

}  // namespace

absl::Status CheckSampleRow(const SampleRow& row, int64_t vocab) {
  LH_RETURN_IF_ERROR(CheckParams(*row.params));
  for (const int32_t token : row.history) LH_RETURN_IF_ERROR(CheckToken("history", token, vocab));
  for (const auto& [token, bias] : row.params->logit_bias) {
    LH_RETURN_IF_ERROR(CheckToken("logit_bias", token, vocab));
    if (!(bias < kInfinity)) {
      return absl::InvalidArgumentError(
          absl::StrCat("logit_bias of token ", token, " is ", bias, "; it must be below infinity"));
    }
  }
  for (const int32_t token : row.banned) LH_RETURN_IF_ERROR(CheckToken("banned", token, vocab));
  return absl::OkStatus();
}

absl::Status NotANumberError() {
  return absl::InternalError(
      "the model gave a logit that is not a number: its weights or its KV are damaged");
}

absl::Status NothingLeftError() {
  return absl::FailedPreconditionError(
      "logit_bias and banned tokens leave no token to choose; allow at least one");
}

absl::StatusOr<SampledToken> SampleToken(absl::Span<const float> logits, const SampleRow& row) {
  const SamplingParams& params = *row.params;
  LH_RETURN_IF_ERROR(CheckSampleRow(row, static_cast<int64_t>(logits.size())));
  if (!AllBelowInfinity(logits)) return NotANumberError();
  std::vector<float> changed;
  absl::Span<const float> candidates = logits;
  if (ChangesLogits(row)) {
    changed.assign(logits.begin(), logits.end());
    ChangeLogits(row, absl::MakeSpan(changed));
    candidates = changed;
  }
  SampledToken sampled;
  std::vector<float> weights;
  sampled.token = ArgMax(candidates);
  const float best = candidates[sampled.token];
  if (best == -kInfinity) return NothingLeftError();
  if (params.temperature > 0.0f) {
    weights.resize(candidates.size());
    const double total = Exponentials(candidates, best, params.temperature, weights.data());
    const double uniform = UniformAt(params.seed, static_cast<uint64_t>(row.output_position));
    const bool cut = params.top_p < 1.0f || params.top_k > 0;
    sampled.token = cut ? DrawFromTop(candidates, weights, total, params, uniform)
                        : DrawFromAll(weights, total, params.min_p, uniform);
  }
  if (params.top_logprobs >= 0) SetLogprobs(logits, params.top_logprobs, weights, sampled);
  return sampled;
}

}  // namespace longhaul
