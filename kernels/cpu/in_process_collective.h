// The Collective of ranks whose activations lie in this process's memory: threads that meet at a
// barrier.
#pragma once

#include <memory>
#include <vector>

#include "common/model/collective.h"

namespace longhaul {

// One for each rank, in order of rank.
std::vector<std::unique_ptr<Collective>> MakeInProcessCollectives(int width);

}  // namespace longhaul
