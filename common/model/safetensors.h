// The structure of a .safetensors file: an 8-byte header length, a JSON table of tensors, their
// bytes. Checked without any meaning; hugging_face_model.h gives it its meaning. Format: the
// safetensors README. Any thread; the bytes must outlive the tensors, which are views.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/dtype.h"

namespace longhaul {

struct SafetensorsTensor {
  std::string name;
  DType dtype = DType::kF32;        // kF32, kF16 or kBF16; others are refused
  std::vector<int64_t> shape;       // outermost first
  const std::byte* data = nullptr;  // aligned only as far as the file is
  int64_t bytes = 0;
};

// In the order of their bytes. `where` names the file in errors. As the format demands, the tensors
// must cover the bytes behind the header without gap or overlap.
absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensors(absl::Span<const std::byte> bytes,
                                                                const std::string& where);

}  // namespace longhaul
