#include "common/engine/cost_model.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"

namespace longhaul {
namespace {

constexpr double kForget = 0.995;      // weight of a sample after one more: memory of about 200
constexpr double kPriorWeight = 0.01;  // in samples: yields to the data at once where they speak
constexpr NonNegativeFit::Features kPrefillPrior = {2000.0, 300.0, 0.02};
constexpr NonNegativeFit::Features kDecodePrior = {8000.0, 1000.0, 0.5};

NonNegativeFit::Features PrefillFeatures(int64_t tokens, int64_t position) {
  const double n = static_cast<double>(tokens);
  return {1.0, n, n * (static_cast<double>(position) + n / 2)};
}

NonNegativeFit::Features DecodeFeatures(int64_t rows, int64_t context_tokens) {
  return {1.0, static_cast<double>(rows), static_cast<double>(context_tokens)};
}

// Solves the equations restricted to the features of `mask`; false when they are singular.
bool SolveSubset(const std::array<std::array<double, 3>, 3>& products,
                 const NonNegativeFit::Features& targets, unsigned mask,
                 NonNegativeFit::Features& weights) {
  int index[3];
  int size = 0;
  for (int i = 0; i < 3; ++i) {
    if (mask >> i & 1) index[size++] = i;
  }
  double rows[3][4];
  for (int i = 0; i < size; ++i) {
    for (int j = 0; j < size; ++j) rows[i][j] = products[index[i]][index[j]];
    rows[i][size] = targets[index[i]];
  }
  for (int i = 0; i < size; ++i) {
    int pivot = i;
    for (int r = i + 1; r < size; ++r) {
      if (std::abs(rows[r][i]) > std::abs(rows[pivot][i])) pivot = r;
    }
    if (std::abs(rows[pivot][i]) < 1e-12) return false;
    for (int c = 0; c <= size; ++c) std::swap(rows[i][c], rows[pivot][c]);
    for (int r = 0; r < size; ++r) {
      if (r == i) continue;
      const double factor = rows[r][i] / rows[i][i];
      for (int c = i; c <= size; ++c) rows[r][c] -= factor * rows[i][c];
    }
  }
  weights = {};
  for (int i = 0; i < size; ++i) weights[index[i]] = rows[i][size] / rows[i][i];
  return true;
}

bool ValidWeights(absl::Span<const double> weights) {
  double total = 0;
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight < 0) return false;
    total += weight;
  }
  return total > 0;
}

}  // namespace

double NonNegativeFit::Predict(const Features& features) const {
  return weights_[0] * features[0] + weights_[1] * features[1] + weights_[2] * features[2];
}

void NonNegativeFit::Observe(const Features& features, double measured) {
  if (!(measured > 0) || !std::isfinite(measured)) return;
  double prior_us = 0;
  for (int i = 0; i < 3; ++i) prior_us += prior_[i] * features[i];
  if (!(prior_us > 0)) return;
  samples_ = samples_ * kForget + 1;
  log_ratio_total_ = log_ratio_total_ * kForget + std::log(measured / prior_us);
  Features row;
  for (int i = 0; i < 3; ++i) row[i] = prior_[i] * features[i] / measured;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) products_[i][j] = products_[i][j] * kForget + row[i] * row[j];
    targets_[i] = targets_[i] * kForget + row[i];
  }
  Solve();
}

// Three features have seven subsets: trying them all is exact, where an iterative non-negative
// solver would need care.
void NonNegativeFit::Solve() {
  // The prior, scaled by how far off it has been, pulls each weight (in units of the prior) gently.
  const double scale = std::exp(log_ratio_total_ / samples_);
  auto products = products_;
  auto targets = targets_;
  for (int i = 0; i < 3; ++i) {
    products[i][i] += kPriorWeight / (scale * scale);
    targets[i] += kPriorWeight / scale;
  }
  double best_loss = 0;
  Features best = {};
  bool found = false;
  for (unsigned mask = 1; mask < 8; ++mask) {
    Features candidate;
    if (!SolveSubset(products, targets, mask, candidate)) continue;
    if (!ValidWeights(candidate)) continue;
    double loss = 0;
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) loss += candidate[i] * products[i][j] * candidate[j];
      loss -= 2 * targets[i] * candidate[i];
    }
    if (!found || loss < best_loss) {
      found = true;
      best_loss = loss;
      best = candidate;
    }
  }
  if (!found) return;
  for (int i = 0; i < 3; ++i) weights_[i] = best[i] * prior_[i];
}

CostModel::CostModel() : prefill_(kPrefillPrior), decode_(kDecodePrior) {}

CostModel CostModel::FromCoefficients(absl::Span<const double> coefficients) {
  CostModel model;
  if (coefficients.size() != 6) return model;
  if (ValidWeights(coefficients.subspan(0, 3))) {
    model.prefill_ = NonNegativeFit({coefficients[0], coefficients[1], coefficients[2]});
  }
  if (ValidWeights(coefficients.subspan(3, 3))) {
    model.decode_ = NonNegativeFit({coefficients[3], coefficients[4], coefficients[5]});
  }
  return model;
}

std::vector<double> CostModel::coefficients() const {
  const auto& c = prefill_.weights();
  const auto& d = decode_.weights();
  return {c[0], c[1], c[2], d[0], d[1], d[2]};
}

double CostModel::PrefillUs(int64_t tokens, int64_t position) const {
  return tokens <= 0 ? 0 : prefill_.Predict(PrefillFeatures(tokens, position));
}

double CostModel::DecodeStepUs(int64_t rows, int64_t context_tokens) const {
  return rows <= 0 ? 0 : decode_.Predict(DecodeFeatures(rows, context_tokens));
}

int64_t CostModel::ChunkTokens(int64_t position, double target_us, int64_t tokens_max,
                               int64_t multiple) const {
  LH_CHECK(multiple >= 1, "chunk multiple must be positive");
  const int64_t most = std::max(tokens_max / multiple, int64_t{1}) * multiple;
  // c2/2 n^2 + (c1 + c2 p) n + (c0 - target) = 0, in the form that stays exact for c2 = 0.
  const auto& c = prefill_.weights();
  const double room = target_us - c[0];
  if (room <= 0) return multiple;
  const double linear = c[1] + c[2] * static_cast<double>(position);
  const double root = linear + std::sqrt(linear * linear + 2 * c[2] * room);
  if (root <= 0) return most;
  const double tokens = 2 * room / root;
  if (tokens >= static_cast<double>(most)) return most;
  return std::max(static_cast<int64_t>(tokens) / multiple, int64_t{1}) * multiple;
}

void CostModel::Observe(int64_t tokens, int64_t position, double measured_us) {
  if (tokens <= 0 || position < 0) return;
  prefill_.Observe(PrefillFeatures(tokens, position), measured_us);
}

void CostModel::ObserveDecode(int64_t rows, int64_t context_tokens, double measured_us) {
  if (rows <= 0 || context_tokens < 0) return;
  decode_.Observe(DecodeFeatures(rows, context_tokens), measured_us);
}

}  // namespace longhaul
