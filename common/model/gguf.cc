#include "common/model/gguf.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

template <typename T>
T Load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));
  return value;
}

}  // namespace

absl::string_view GgufTypeName(GgufType type) {
  constexpr absl::string_view kNames[] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                          "int32",  "float32", "bool",   "string", "array",
                                          "uint64", "int64",   "float64"};
  return kNames[static_cast<size_t>(type)];
}

size_t GgufScalarBytes(GgufType type) {
  constexpr size_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kBytes[static_cast<size_t>(type)];
}

bool GgufIsInteger(GgufType type) {
  return GgufScalarBytes(type) != 0 && type != GgufType::kF32 && type != GgufType::kF64 &&
         type != GgufType::kBool;
}

bool GgufReadInteger(GgufType type, const std::byte* data, int64_t* out) {
  switch (type) {
    case GgufType::kU8:
      *out = Load<uint8_t>(data);
      return true;
    case GgufType::kI8:
      *out = Load<int8_t>(data);
      return true;
    case GgufType::kU16:
      *out = Load<uint16_t>(data);
      return true;
    case GgufType::kI16:
      *out = Load<int16_t>(data);
      return true;
    case GgufType::kU32:
      *out = Load<uint32_t>(data);
      return true;
    case GgufType::kI32:
      *out = Load<int32_t>(data);
      return true;
    case GgufType::kI64:
      *out = Load<int64_t>(data);
      return true;
    case GgufType::kU64: {
      const auto value = Load<uint64_t>(data);
      *out = static_cast<int64_t>(value);
      return value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    }
    default:
      return false;
  }
}

absl::Status GgufFile::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(name_, ": ", message));
}

const GgufTensor* GgufFile::FindTensor(absl::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufValue* GgufFile::Find(absl::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

absl::Status GgufFile::MissingKey(absl::string_view key) const {
  return absl::NotFoundError(
      absl::StrCat(name_, ": key ", key, " is missing; convert the model again"));
}

absl::Status GgufFile::WrongType(absl::string_view key, const GgufValue& value,
                                 absl::string_view wanted) const {
  return Error(absl::StrCat("key ", key, " is of type ", GgufTypeName(value.type), "; ", wanted,
                            " is valid"));
}

absl::StatusOr<int64_t> GgufFile::Integer(absl::string_view key, int64_t min, int64_t max) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return MissingKey(key);
  if (!GgufIsInteger(value->type)) return WrongType(key, *value, "an integer");
  int64_t number = 0;
  const bool fits = GgufReadInteger(value->type, value->scalar, &number);
  if (!fits || number < min || number > max) {
    return Error(absl::StrCat("key ", key, " is ", fits ? absl::StrCat(number) : "above 2^63", "; ",
                              min, " to ", max, " is valid"));
  }
  return number;
}

absl::StatusOr<double> GgufFile::Number(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return MissingKey(key);
  double number = 0;
  int64_t whole = 0;
  if (value->type == GgufType::kF32) {
    number = Load<float>(value->scalar);
  } else if (value->type == GgufType::kF64) {
    number = Load<double>(value->scalar);
  } else if (GgufIsInteger(value->type) && GgufReadInteger(value->type, value->scalar, &whole)) {
    number = static_cast<double>(whole);
  } else {
    return WrongType(key, *value, "a number");
  }
  if (!std::isfinite(number)) return Error(absl::StrCat("key ", key, " is ", number));
  return number;
}

absl::StatusOr<bool> GgufFile::Bool(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return MissingKey(key);
  if (value->type != GgufType::kBool) return WrongType(key, *value, "bool");
  return static_cast<uint8_t>(*value->scalar) != 0;
}

absl::StatusOr<absl::string_view> GgufFile::Text(absl::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return MissingKey(key);
  if (value->type != GgufType::kString) return WrongType(key, *value, "string");
  return value->text;
}

absl::StatusOr<int64_t> GgufFile::IntegerOr(absl::string_view key, int64_t min, int64_t max,
                                            int64_t absent) const {
  if (Find(key) == nullptr) return absent;
  return Integer(key, min, max);
}

absl::StatusOr<double> GgufFile::NumberOr(absl::string_view key, double absent) const {
  if (Find(key) == nullptr) return absent;
  return Number(key);
}

absl::StatusOr<bool> GgufFile::BoolOr(absl::string_view key, bool absent) const {
  if (Find(key) == nullptr) return absent;
  return Bool(key);
}

absl::StatusOr<absl::string_view> GgufFile::TextOr(absl::string_view key,
                                                   absl::string_view absent) const {
  if (Find(key) == nullptr) return absent;
  return Text(key);
}

}  // namespace longhaul
