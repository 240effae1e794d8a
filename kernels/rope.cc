#include "kernels/rope.h"

#include <cmath>
#include <numbers>

namespace longhaul {
namespace {

double Llama3Frequency(double frequency, const RopeScaling& scaling) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double original = static_cast<double>(scaling.original_context_tokens);
  if (wavelength < original / scaling.high_freq_factor) return frequency;
  if (wavelength > original / scaling.low_freq_factor) return frequency / scaling.factor;
  const double smooth = (original / wavelength - scaling.low_freq_factor) /
                        (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0 - smooth) * frequency / scaling.factor + smooth * frequency;
}

}  // namespace

std::vector<double> RopeFrequencies(const ModelConfig& config) {
  const int pairs = config.head_dim / 2;
  std::vector<double> frequencies(pairs);
  for (int i = 0; i < pairs; ++i) {
    double frequency = std::pow(config.rope_theta, -2.0 * i / config.head_dim);
    switch (config.rope_scaling.kind) {
      case RopeScaling::Kind::kNone:
        break;
      case RopeScaling::Kind::kLinear:
        frequency /= config.rope_scaling.factor;
        break;
      case RopeScaling::Kind::kLlama3:
        frequency = Llama3Frequency(frequency, config.rope_scaling);
        break;
    }
    if (!config.rope_freq_divisors.empty()) frequency /= config.rope_freq_divisors[i];
    frequencies[i] = frequency;
  }
  return frequencies;
}

void RopeAngles(absl::Span<const double> frequencies, int64_t position, float* cosines,
                float* sines) {
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    cosines[i] = static_cast<float>(std::cos(angle));
    sines[i] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace longhaul
