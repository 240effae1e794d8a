// CostModel: what a prompt chunk or a decode step will take, from what such work took before. Pure:
// no clock, no thread. Router, workers, planner and simulator share it; a worker fits it and sends
// its coefficients with WorkerStatus, everybody else only reads.
//
//   prefill(n, p)      = c0 + c1 * n + c2 * n * (p + n / 2)      n uncached tokens at position p
//   decode(rows, ctx)  = d0 + d1 * rows + d2 * ctx               ctx: context tokens over all rows
//
// c0 and d0 are the cost of a step as such, c1 and d1 the matrix products, c2 and d2 attention: the
// n * (p + n / 2) pairs of a causal chunk. Both are fitted by least squares of the *relative* error
// with exponential forgetting, every coefficient kept non-negative.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace longhaul {

// Three non-negative weights over three features, fitted online.
class NonNegativeFit {
 public:
  using Features = std::array<double, 3>;

  // `prior`: the weights before any sample; their ratio, not their size, guides the fit while the
  // samples alone do not determine it. All positive.
  explicit NonNegativeFit(Features prior) : prior_(prior), weights_(prior) {}

  double Predict(const Features& features) const;
  // `measured` > 0; others are ignored.
  void Observe(const Features& features, double measured);
  const Features& weights() const { return weights_; }

 private:
  void Solve();

  Features prior_;
  Features weights_;
  // Normal equations of rows (features / measured) against 1, in units of the prior.
  std::array<std::array<double, 3>, 3> products_{};
  Features targets_{};
  double samples_ = 0;          // decayed
  double log_ratio_total_ = 0;  // decayed sum of log(measured / prior's prediction)
};

class CostModel {
 public:
  // Before any sample: a small model on a few CPU cores. A wrong scale is put right by the first
  // sample.
  CostModel();

  // As sent by coefficients(). Anything else (wrong count, negative, not finite, all zero prefill)
  // gives the default: a peer's bytes never break a prediction.
  static CostModel FromCoefficients(absl::Span<const double> coefficients);
  std::vector<double> coefficients() const;  // [6]: c0 c1 c2 d0 d1 d2, microseconds

  // Microseconds to compute `tokens` at `position` in one chunk; 0 for no tokens.
  double PrefillUs(int64_t tokens, int64_t position) const;
  // Microseconds of one decode step; 0 for no rows.
  double DecodeStepUs(int64_t rows, int64_t context_tokens) const;

  // The most tokens at `position` whose chunk takes `target_us` or less, as a multiple of
  // `multiple`; at least `multiple`, at most `tokens_max` rounded down to a multiple (but never
  // below one multiple). So chunks shrink as the position grows and each takes about the same time.
  int64_t ChunkTokens(int64_t position, double target_us, int64_t tokens_max,
                      int64_t multiple) const;

  void Observe(int64_t tokens, int64_t position, double measured_us);
  void ObserveDecode(int64_t rows, int64_t context_tokens, double measured_us);

 private:
  NonNegativeFit prefill_;
  NonNegativeFit decode_;
};

}  // namespace longhaul
