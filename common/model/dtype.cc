#include "common/model/dtype.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace longhaul {
namespace {

struct Traits {
  absl::string_view name;
  int64_t block_elements;
  int64_t block_bytes;
};

// By DType.
constexpr std::array<Traits, 12> kTraits = {{
    {"f32", 1, 4},
    {"f16", 1, 2},
    {"bf16", 1, 2},
    {"q8_0", 32, 34},
    {"q4_0", 32, 18},
    {"q4_1", 32, 20},
    {"q5_0", 32, 22},
    {"q5_1", 32, 24},
    {"q4_k", 256, 144},
    {"q5_k", 256, 176},
    {"q6_k", 256, 210},
    {"i32", 1, 4},
}};

const Traits& TraitsOf(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  LH_CHECK(index < kTraits.size(), absl::StrCat("dtype ", index));
  return kTraits[index];
}

}  // namespace

absl::string_view DTypeName(DType dtype) { return TraitsOf(dtype).name; }
int64_t BlockElements(DType dtype) { return TraitsOf(dtype).block_elements; }
int64_t BlockBytes(DType dtype) { return TraitsOf(dtype).block_bytes; }

int64_t RowBytes(DType dtype, int64_t elements) {
  const Traits& traits = TraitsOf(dtype);
  LH_CHECK(elements >= 0 && elements % traits.block_elements == 0,
           absl::StrCat(elements, " elements in blocks of ", traits.block_elements));
  return elements / traits.block_elements * traits.block_bytes;
}

}  // namespace longhaul
