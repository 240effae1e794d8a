// GgufFile: the structure of a GGUF v3 file (key-value metadata and a table of tensors), checked
// byte by byte and without any meaning. gguf_model.h gives it its meaning. Format: the GGUF
// specification (ggml, docs/gguf.md). Any thread; the file's bytes must outlive the object, which
// holds views of them only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/model/dtype.h"

namespace longhaul {

// The numbers are the file's.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
absl::string_view GgufTypeName(GgufType type);

struct GgufValue {
  GgufType type = GgufType::kU8;
  const std::byte* scalar = nullptr;  // the scalar's bytes, for any type but string and array
  absl::string_view text;             // kString

  // kArray. Elements of nested arrays are checked and skipped.
  GgufType element_type = GgufType::kU8;
  uint64_t count = 0;
  const std::byte* elements = nullptr;     // scalars, one after the other, unaligned
  std::vector<absl::string_view> strings;  // arrays of strings
};

struct GgufTensor {
  absl::string_view name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // as in the file: the width of a row first
  const std::byte* data = nullptr;
  int64_t bytes = 0;
};

class GgufFile {
 public:
  // `name` is what errors call the file. Every count, length, offset and type is checked against
  // the bytes there are before anything is allocated for it.
  static absl::StatusOr<GgufFile> Parse(absl::Span<const std::byte> bytes, const std::string& name);

  const std::string& name() const { return name_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* FindTensor(absl::string_view name) const;  // null: none
  const GgufValue* Find(absl::string_view key) const;          // null: none

  // Typed metadata. Errors: NotFound without the key; InvalidArgument for another type or a value
  // out of range.
  absl::StatusOr<int64_t> Integer(absl::string_view key, int64_t min, int64_t max) const;
  absl::StatusOr<double> Number(absl::string_view key) const;
  absl::StatusOr<bool> Bool(absl::string_view key) const;
  absl::StatusOr<absl::string_view> Text(absl::string_view key) const;

  // The same with a value for an absent key.
  absl::StatusOr<int64_t> IntegerOr(absl::string_view key, int64_t min, int64_t max,
                                    int64_t absent) const;
  absl::StatusOr<double> NumberOr(absl::string_view key, double absent) const;
  absl::StatusOr<bool> BoolOr(absl::string_view key, bool absent) const;
  absl::StatusOr<absl::string_view> TextOr(absl::string_view key, absl::string_view absent) const;

  // InvalidArgument with the file's name in front.
  absl::Status Error(absl::string_view message) const;

 private:
  friend class GgufParser;
  absl::Status MissingKey(absl::string_view key) const;
  absl::Status WrongType(absl::string_view key, const GgufValue& value,
                         absl::string_view wanted) const;

  std::string name_;
  absl::flat_hash_map<absl::string_view, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<absl::string_view, size_t> tensor_index_;
};

bool GgufIsInteger(GgufType type);
// False for other types and for values that do not fit int64. `data` needs no alignment.
bool GgufReadInteger(GgufType type, const std::byte* data, int64_t* out);
size_t GgufScalarBytes(GgufType type);  // 0 for string and array

}  // namespace longhaul
