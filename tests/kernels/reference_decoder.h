// The transformer in float64 with plain loops and no cache of any kind: what the decoder is held
// against. Keys and values are rounded to bf16, as the cache would.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/model/dequantize.h"
#include "common/model/half.h"
#include "common/model/model_file.h"

namespace longhaul {

class ReferenceDecoder {
 public:
  explicit ReferenceDecoder(const ModelFile& model) : model_(model), c_(model.config) {}

  // Logits [vocab] after the last of `tokens`.
  std::vector<double> Logits(const std::vector<int32_t>& tokens) const {
    std::vector<Row> rows;
    for (const int32_t token : tokens) rows.push_back(WeightRow(model_.weights.embedding, token));
    for (const LayerWeights& layer : model_.weights.layers) Layer(layer, rows);
    return Multiply(c_.tied_head ? model_.weights.embedding : model_.weights.head,
                    Norm(rows.back(), model_.weights.final_norm));
  }

 private:
  using Row = std::vector<double>;

  static Row WeightRow(const WeightView& weight, int64_t row) {
    std::vector<float> values(weight.cols);
    DequantizeRow(weight, row, values.data());
    return Row(values.begin(), values.end());
  }
  static Row Multiply(const WeightView& weight, const Row& x) {
    Row y(weight.rows);
    for (int64_t i = 0; i < weight.rows; ++i) {
      const Row w = WeightRow(weight, i);
      for (int64_t j = 0; j < weight.cols; ++j) y[i] += w[j] * x[j];
    }
    return y;
  }
  Row Norm(const Row& x, const WeightView& weight) const {
    const Row w = WeightRow(weight, 0);
    double squares = 0;
    for (const double v : x) squares += v * v;
    const double scale = 1.0 / std::sqrt(squares / x.size() + double{c_.rms_epsilon});
    Row y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * w[i];
    return y;
  }
  static void Add(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  Row Project(const Row& x, const WeightView& weight, const WeightView& bias) const {
    Row y = Multiply(weight, x);
    if (bias.present()) Add(y, WeightRow(bias, 0));
    return y;
  }
  static void RoundToBf16(Row& x) {
    for (double& v : x) v = F32FromBF16(BF16FromF32(static_cast<float>(v)));
  }
  double Frequency(int pair) const {
    double f = std::pow(c_.rope_theta, -2.0 * pair / c_.head_dim);
    const RopeScaling& s = c_.rope_scaling;
    if (s.kind == RopeScaling::Kind::kLinear) f /= s.factor;
    if (s.kind == RopeScaling::Kind::kLlama3) {
      const double turns = s.original_context_tokens * f / (2 * M_PI);
      double keep = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      keep = std::min(1.0, std::max(0.0, keep));
      f *= keep + (1 - keep) / s.factor;
    }
    if (!c_.rope_freq_divisors.empty()) f /= c_.rope_freq_divisors[pair];
    return f;
  }
  // Norms (Qwen3) and rotates one head.
  void Turn(Row& x, int head, int64_t position, const WeightView& norm) const {
    const int dim = c_.head_dim;
    Row h(x.begin() + head * dim, x.begin() + (head + 1) * dim);
    if (norm.present()) h = Norm(h, norm);
    for (int i = 0; i < dim / 2; ++i) {
      const bool half = c_.rope_style == RopeStyle::kHalf;
      const int a = half ? i : 2 * i;
      const int b = half ? i + dim / 2 : 2 * i + 1;
      const double angle = position * Frequency(i);
      x[head * dim + a] = h[a] * std::cos(angle) - h[b] * std::sin(angle);
      x[head * dim + b] = h[a] * std::sin(angle) + h[b] * std::cos(angle);
    }
  }

  void Layer(const LayerWeights& w, std::vector<Row>& rows) const {
    const int dim = c_.head_dim;
    const int group = c_.heads / c_.kv_heads;
    std::vector<Row> keys;
    std::vector<Row> values;
    for (size_t position = 0; position < rows.size(); ++position) {
      const Row normed = Norm(rows[position], w.attention_norm);
      Row q = Project(normed, w.q, w.q_bias);
      keys.push_back(Project(normed, w.k, w.k_bias));
      values.push_back(Project(normed, w.v, w.v_bias));
      for (int head = 0; head < c_.heads; ++head) Turn(q, head, position, w.q_norm);
      for (int head = 0; head < c_.kv_heads; ++head) Turn(keys.back(), head, position, w.k_norm);
      RoundToBf16(keys.back());
      RoundToBf16(values.back());
      Row attended(c_.heads * dim);
      for (int head = 0; head < c_.heads; ++head) {
        const int kv = head / group * dim;
        std::vector<double> weights;
        double total = 0;
        for (size_t key = 0; key <= position; ++key) {
          double score = 0;
          for (int d = 0; d < dim; ++d) score += q[head * dim + d] * keys[key][kv + d];
          weights.push_back(std::exp(score / std::sqrt(dim)));
          total += weights.back();
        }
        for (size_t key = 0; key <= position; ++key) {
          for (int d = 0; d < dim; ++d) {
            attended[head * dim + d] += weights[key] / total * values[key][kv + d];
          }
        }
      }
      Add(rows[position], Multiply(w.attention_out, attended));
      const Row ffn = Norm(rows[position], w.ffn_norm);
      Row gate = Multiply(w.gate, ffn);
      const Row up = Multiply(w.up, ffn);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
      Add(rows[position], Multiply(w.down, gate));
    }
  }

  const ModelFile& model_;
  const ModelConfig& c_;
};

}  // namespace longhaul
