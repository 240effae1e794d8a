// Dequantisation of one row to float32, in plain scalar code: the reference for every block format.
// Any thread. Backends use it at load time and for rows of an embedding; their own fast paths are
// tested against it. Formats: GGML's block formats as the GGUF specification's quantisation
// section names them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/model/dtype.h"
#include "common/model/weights.h"

namespace longhaul {

// out [elements] = the row at `data`, RowBytes(dtype, elements) long and with any alignment.
// `elements` must be a multiple of BlockElements(dtype).
void DequantizeRow(DType dtype, const std::byte* data, int64_t elements, float* out);

// out [cols] = row `row` of `weight`.
void DequantizeRow(const WeightView& weight, int64_t row, float* out);

}  // namespace longhaul
