#include "common/model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/model/json_fields.h"

namespace longhaul {
namespace {

constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the format's own limit
constexpr size_t kDimensionsMax = 8;

absl::StatusOr<DType> ReadDType(const JsonFields& entry) {
  LH_ASSIGN_OR_RETURN(const absl::string_view name, entry.Text("dtype"));
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBF16;
  return entry.Error(absl::StrCat("has type ", absl::CHexEscape(name.substr(0, 40)),
                                  "; F32, F16 and BF16 are supported"));
}

// Errors: a number that is not a non-negative integer.
absl::StatusOr<std::vector<int64_t>> ReadNumbers(const JsonFields& entry, absl::string_view name,
                                                 size_t count_max) {
  LH_ASSIGN_OR_RETURN(const boost::json::array* array, entry.Array(name));
  if (array->size() > count_max) {
    return entry.Error(
        absl::StrCat(name, " has ", array->size(), " numbers; at most ", count_max, " are valid"));
  }
  std::vector<int64_t> numbers;
  for (const boost::json::value& value : *array) {
    boost::json::error_code error;
    const bool integer = value.is_int64() || value.is_uint64();
    const int64_t number = integer ? value.to_number<int64_t>(error) : -1;
    if (error || number < 0) {
      return entry.Error(absl::StrCat(name, " holds something else than integers from 0 on"));
    }
    numbers.push_back(number);
  }
  return numbers;
}

// Places the tensor within `data`, whose bytes its shape and type must fill exactly.
absl::Status ReadTensor(const JsonFields& entry, absl::Span<const std::byte> data,
                        SafetensorsTensor* tensor) {
  LH_ASSIGN_OR_RETURN(tensor->dtype, ReadDType(entry));
  LH_ASSIGN_OR_RETURN(tensor->shape, ReadNumbers(entry, "shape", kDimensionsMax));
  LH_ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, ReadNumbers(entry, "data_offsets", 2));
  int64_t bytes = BlockBytes(tensor->dtype);
  for (const int64_t extent : tensor->shape) {
    if (extent == 0 || __builtin_mul_overflow(bytes, extent, &bytes)) {
      return entry.Error(absl::StrCat("has an extent of ", extent, ", which makes it ",
                                      extent == 0 ? "empty" : "larger than 2^63 bytes"));
    }
  }
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] - offsets[0] != bytes ||
      offsets[1] > static_cast<int64_t>(data.size())) {
    return entry.Error(absl::StrCat(
        "its shape and type need ", bytes, " bytes, but data_offsets are [",
        offsets.empty() ? 0 : offsets[0], ", ", offsets.size() < 2 ? 0 : offsets[1], "] of ",
        data.size(), " bytes of data; the file is truncated or damaged: download it again"));
  }
  tensor->data = data.data() + offsets[0];
  tensor->bytes = bytes;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensors(absl::Span<const std::byte> bytes,
                                                                const std::string& where) {
  const auto error = [&where](absl::string_view message) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", message));
  };
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes)) {
    return error(absl::StrCat("has ", bytes.size(), " bytes; a safetensors file has at least 8"));
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  bytes.remove_prefix(sizeof(header_bytes));
  if (header_bytes > kHeaderBytesMax || header_bytes > bytes.size()) {
    return error(absl::StrCat("claims a header of ", header_bytes, " bytes, but ", bytes.size(),
                              " follow and ", kHeaderBytesMax,
                              " is the most; it is truncated, damaged or no safetensors file"));
  }
  const absl::string_view header(reinterpret_cast<const char*>(bytes.data()), header_bytes);
  bytes.remove_prefix(header_bytes);
  LH_ASSIGN_OR_RETURN(const boost::json::value table, ParseJson(header, where));
  LH_ASSIGN_OR_RETURN(const JsonFields entries, JsonFields::Make(table, where));

  std::vector<SafetensorsTensor> tensors;
  for (const auto& item : entries.object()) {
    if (item.key() == "__metadata__") continue;
    SafetensorsTensor tensor;
    tensor.name.assign(item.key().data(), item.key().size());
    const std::string shown = absl::CHexEscape(tensor.name.substr(0, 120));
    LH_ASSIGN_OR_RETURN(const JsonFields entry,
                        JsonFields::Make(item.value(), absl::StrCat(where, ": tensor ", shown)));
    LH_RETURN_IF_ERROR(ReadTensor(entry, bytes, &tensor));
    tensors.push_back(std::move(tensor));
  }

  // A name that occurs twice in the table leaves a gap, as the JSON reader keeps only the last.
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.data < b.data; });
  const std::byte* end = bytes.data();
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.data != end) {
      return error(absl::StrCat("tensor ", absl::CHexEscape(tensor.name.substr(0, 120)),
                                " begins at byte ", tensor.data - bytes.data(), " of the data, ",
                                "but the one before ends at ", end - bytes.data(),
                                "; overlaps, gaps and names that occur twice are not valid"));
    }
    end += tensor.bytes;
  }
  if (end != bytes.data() + bytes.size()) {
    return error(absl::StrCat("its tensors end at byte ", end - bytes.data(), " of ", bytes.size(),
                              " bytes of data; the rest belongs to none"));
  }
  return tensors;
}

}  // namespace longhaul
