// The gated activation of one pair of values. Device code only.
#pragma once

namespace longhaul {

// silu(gate) * up.
__device__ __forceinline__ float Gated(float gate, float up) {
  return __fdividef(gate, 1.0f + __expf(-gate)) * up;
}

}  // namespace longhaul
