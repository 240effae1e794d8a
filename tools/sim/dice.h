// Dice: every choice of a simulation, drawn from its seed.
#pragma once

#include <cstdint>

#include "common/base/random.h"

namespace longhaul {

class Dice {
 public:
  explicit Dice(uint64_t seed) : seed_(seed) {}

  uint64_t Bits() { return (uint64_t{High()} << 32) ^ High(); }
  // Uniform in [low, high].
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(Uniform() * static_cast<double>(high - low + 1));
  }
  double Uniform() { return UniformAt(seed_, drawn_++); }
  bool Chance(double probability) { return Uniform() < probability; }

 private:
  uint32_t High() { return static_cast<uint32_t>(Uniform() * 4294967296.0); }
  const uint64_t seed_;
  uint64_t drawn_ = 0;
};

}  // namespace longhaul
