// Descriptions of bf16 tensors for the tensor copy engine (TMA). Made on the host, passed to
// kernels by value as
// __grid_constant__ parameters. Any thread.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "absl/types/span.h"

namespace longhaul {

// A bf16 tensor at `base` (device memory, 16-byte aligned). `sizes` are elements, innermost first,
// two to five dimensions; `stride_bytes` those of all dimensions but the innermost, multiples
// of 16. A copy takes `box` elements; box[0] is 64 (128 bytes, with the 128-byte swizzle of
// ptx.cuh), the others up to 256. What a box covers outside of the tensor arrives as zeros.
// Arguments that the driver refuses are a bug of the caller: LH_CHECK.
CUtensorMap MakeTensorMap(const void* base, absl::Span<const uint64_t> sizes,
                          absl::Span<const uint64_t> stride_bytes, absl::Span<const uint32_t> box);

// The usual case: rows of a matrix [rows, cols], row after row; a copy takes box_rows x 64.
CUtensorMap MakeMatrixMap(const void* base, uint64_t rows, uint64_t cols, uint32_t box_rows);

}  // namespace longhaul
