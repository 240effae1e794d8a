// What the model does beside matrix products and attention, row by row. All pointers are device
// memory, 16-byte aligned; widths are multiples of 8. float32 inside; bf16 values are rounded once,
// on their way out. Each queues one kernel that may begin before the one before it ends. Device
// thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "common/model/config.h"
#include "common/model/kv_layout.h"

namespace longhaul {

using Bf16 = uint16_t;  // the bits of one

// The widest row that RmsNorm takes.
inline constexpr int64_t kRmsNormWidthMax = 16384;

// angles [rows][pairs] = (cos, sin) of positions [rows] times frequencies [pairs], in float64.
void LaunchRotationAngles(float2* angles, const double* frequencies, const int32_t* positions,
                          int64_t rows, int pairs, cudaStream_t stream);

// out [rows, width] = rows of table [vocab, width] by tokens [rows].
void LaunchEmbed(float* out, const Bf16* table, const int32_t* tokens, int64_t rows, int64_t width,
                 cudaStream_t stream);

// out [rows, width] = x / rms(x) * weight for x [rows, width], weight [width].
void LaunchRmsNorm(Bf16* out, const float* x, const float* weight, int64_t rows, int64_t width,
                   float epsilon, cudaStream_t stream);

// The same over each of `heads` neighbouring heads of qkv [rows, width] from `column` on, in place;
// weight [head_dim].
void LaunchHeadNorm(Bf16* qkv, int64_t rows, int64_t width, int64_t column, int heads, int head_dim,
                    const float* weight, float epsilon, cudaStream_t stream);

struct RopeAndStoreKvCall {
  Bf16* qkv = nullptr;  // [rows, (heads + 2 kv_heads) * head_dim]: q is rotated in place
  int64_t rows = 0;
  int heads = 0;
  KvLayout layout;
  RopeStyle style = RopeStyle::kHalf;
  Bf16* slabs = nullptr;           // of the layer: [blocks][slab]
  const float2* angles = nullptr;  // [rows][head_dim / 2]
  const int64_t* slots = nullptr;  // [rows]: block * block_tokens + position in the block
};
void LaunchRopeAndStoreKv(const RopeAndStoreKvCall& call, cudaStream_t stream);

// Gate and up lie in turns in a weight of WeightUse::kGated: this many rows of gate, as many of up,
// and so on. A thread of the matrix unit that holds a value of gate then holds the one of up, too.
inline constexpr int kGatedRows = 8;

}  // namespace longhaul
