// ModelRank: one rank of a model that is ready to run: its device, its part of the model and its KV
// pool.
#pragma once

#include "common/model/decoder.h"

namespace longhaul {

struct ModelRank {
  Backend* backend = nullptr;
  Decoder* decoder = nullptr;
  KvPool pool;
  int core = -1;  // to pin its device thread to; -1: none
};

}  // namespace longhaul
