// Element types of weights, activations and KV. Block formats are GGML's: a row is a run of
// fixed-size blocks.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace longhaul {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kI32
};

absl::string_view DTypeName(DType dtype);

// Elements in one block (1 for plain types) and bytes of one block.
int64_t BlockElements(DType dtype);
int64_t BlockBytes(DType dtype);

// Bytes of a row of `elements`, which must be a multiple of BlockElements.
int64_t RowBytes(DType dtype, int64_t elements);

}  // namespace longhaul
