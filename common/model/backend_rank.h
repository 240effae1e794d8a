// BackendRank: what one rank of a worker's model computes with.
#pragma once

#include <memory>

#include "common/model/backend.h"
#include "common/model/collective.h"

namespace longhaul {

struct BackendRank {
  std::unique_ptr<Collective> collective;  // null: the rank is the only one
  std::unique_ptr<Backend> backend;        // goes first: its recordings hold the collective
  int core = -1;                           // to pin its device thread to; -1: none
};

}  // namespace longhaul
