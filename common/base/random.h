// Counter-based random numbers: a value is a pure function of (seed, position, stream), so a
// replayed or migrated request draws what it drew before. Philox4x32-10: Salmon et al., "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>

namespace longhaul {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Uniform in [0, 1) with 53 random bits. `stream` tells independent uses at one position apart.
double UniformAt(uint64_t seed, uint64_t position, uint32_t stream = 0);

// 64 bits that no other process start shares: for incarnations and request ids, never for
// replayable choices.
uint64_t RandomId();

}  // namespace longhaul
