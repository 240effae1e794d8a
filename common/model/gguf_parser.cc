// The parser of GGUF's structure, see gguf.h.
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/model/gguf.h"

namespace longhaul {
namespace {

constexpr uint64_t kKeyBytesMax = 65535;       // the specification's limit
constexpr uint64_t kTensorNameBytesMax = 256;  // the specification says 64
constexpr uint32_t kDimensionsMax = 4;
constexpr int kArrayDepthMax = 4;
constexpr uint64_t kAlignmentDefault = 32;
constexpr uint64_t kAlignmentMax = 1 << 20;

template <typename T>
T Load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));
  return value;
}

// The beginning of untrusted text, for an error message.
std::string Shown(absl::string_view text) {
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, 80)),
                      text.size() > 80 ? "...\"" : "\"");
}

std::optional<DType> DTypeOfGgml(uint32_t type) {
  switch (type) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 26:
      return DType::kI32;
    case 30:
      return DType::kBF16;
    default:
      return std::nullopt;
  }
}

}  // namespace

// Walks the file once, front to back.
class GgufParser {
 public:
  GgufParser(absl::Span<const std::byte> bytes, const std::string& name) : bytes_(bytes) {
    file_.name_ = name;
  }

  absl::StatusOr<GgufFile> Run() {
    LH_RETURN_IF_ERROR(ReadHeader());
    for (uint64_t i = 0; i < metadata_count_; ++i) LH_RETURN_IF_ERROR(ReadMetadata(i));
    LH_RETURN_IF_ERROR(ReadAlignment());
    for (uint64_t i = 0; i < tensor_count_; ++i) LH_RETURN_IF_ERROR(ReadTensor(i));
    LH_RETURN_IF_ERROR(PlaceTensors());
    return std::move(file_);
  }

 private:
  absl::Status Error(absl::string_view message) const { return file_.Error(message); }
  uint64_t left() const { return bytes_.size() - at_; }

  absl::Status Take(uint64_t size, absl::string_view what, const std::byte** out) {
    if (size > left()) {
      return Error(absl::StrCat(what, " needs ", size, " bytes at offset ", at_, " but only ",
                                left(), " of the file's ", bytes_.size(),
                                " are left; it is truncated or damaged: download it again"));
    }
    *out = bytes_.data() + at_;
    at_ += size;
    return absl::OkStatus();
  }

  template <typename T>
  absl::Status Read(absl::string_view what, T* out) {
    const std::byte* data;
    LH_RETURN_IF_ERROR(Take(sizeof(T), what, &data));
    *out = Load<T>(data);
    return absl::OkStatus();
  }

  absl::Status ReadString(absl::string_view what, absl::string_view* out) {
    uint64_t size;
    LH_RETURN_IF_ERROR(Read(what, &size));
    const std::byte* data;
    LH_RETURN_IF_ERROR(Take(size, what, &data));
    *out = {reinterpret_cast<const char*>(data), static_cast<size_t>(size)};
    return absl::OkStatus();
  }

  // A count of things of at least `bytes_min` each must fit what is left.
  absl::Status CheckCount(absl::string_view what, uint64_t count, uint64_t bytes_min) const {
    if (count <= left() / bytes_min) return absl::OkStatus();
    return Error(absl::StrCat(what, " claims ", count, " entries of at least ", bytes_min,
                              " bytes each, but only ", left(),
                              " bytes follow; it is truncated or ", "damaged: download it again"));
  }

  absl::Status ReadType(absl::string_view what, GgufType* out) {
    uint32_t type;
    LH_RETURN_IF_ERROR(Read(what, &type));
    if (type > static_cast<uint32_t>(GgufType::kF64)) {
      return Error(absl::StrCat(what, " has value type ", type, "; GGUF v3 has types 0 to 12"));
    }
    *out = static_cast<GgufType>(type);
    return absl::OkStatus();
  }

  absl::Status ReadHeader() {
    const std::byte* magic;
    LH_RETURN_IF_ERROR(Take(4, "the header", &magic));
    if (std::memcmp(magic, "GGUF", 4) != 0) {
      return Error(
          "does not begin with \"GGUF\"; give a GGUF v3 file or a Hugging Face model folder");
    }
    uint32_t version;
    LH_RETURN_IF_ERROR(Read("the header", &version));
    if (version == 0x03000000) {
      return Error("is a big-endian GGUF file; convert it to little-endian");
    }
    if (version != 3) {
      return Error(absl::StrCat("is GGUF version ", version,
                                "; only version 3 is read: convert the model again"));
    }
    LH_RETURN_IF_ERROR(Read("the header", &tensor_count_));
    LH_RETURN_IF_ERROR(Read("the header", &metadata_count_));
    LH_RETURN_IF_ERROR(CheckCount("the metadata", metadata_count_, 13));
    return CheckCount("the tensor table", tensor_count_, 32);
  }

  absl::Status ReadMetadata(uint64_t index) {
    const std::string what = absl::StrCat("metadata entry ", index);
    absl::string_view key;
    LH_RETURN_IF_ERROR(ReadString(what, &key));
    if (key.empty() || key.size() > kKeyBytesMax) {
      return Error(absl::StrCat(what, " has a key of ", key.size(), " bytes; 1 to ", kKeyBytesMax,
                                " are valid"));
    }
    const std::string shown = absl::StrCat("key ", Shown(key));
    GgufValue value;
    LH_RETURN_IF_ERROR(ReadType(shown, &value.type));
    LH_RETURN_IF_ERROR(ReadValue(shown, &value));
    if (!file_.metadata_.try_emplace(key, std::move(value)).second) {
      return Error(absl::StrCat(shown, " occurs twice"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadValue(absl::string_view what, GgufValue* value) {
    if (value->type == GgufType::kString) return ReadString(what, &value->text);
    if (value->type == GgufType::kArray) return ReadArray(what, 1, value);
    LH_RETURN_IF_ERROR(Take(GgufScalarBytes(value->type), what, &value->scalar));
    if (value->type == GgufType::kBool && static_cast<uint8_t>(*value->scalar) > 1) {
      return Error(absl::StrCat(what, " is a bool with value ", static_cast<int>(*value->scalar),
                                "; 0 and 1 are valid"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadArray(absl::string_view what, int depth, GgufValue* value) {
    if (depth > kArrayDepthMax) {
      return Error(absl::StrCat(what, " nests arrays deeper than ", kArrayDepthMax));
    }
    LH_RETURN_IF_ERROR(ReadType(what, &value->element_type));
    LH_RETURN_IF_ERROR(Read(what, &value->count));
    switch (value->element_type) {
      case GgufType::kString:
        LH_RETURN_IF_ERROR(CheckCount(what, value->count, 8));
        value->strings.reserve(value->count);
        for (uint64_t i = 0; i < value->count; ++i) {
          absl::string_view text;
          LH_RETURN_IF_ERROR(ReadString(what, &text));
          value->strings.push_back(text);
        }
        return absl::OkStatus();
      case GgufType::kArray:
        LH_RETURN_IF_ERROR(CheckCount(what, value->count, 12));
        for (uint64_t i = 0; i < value->count; ++i) {
          GgufValue skipped;
          LH_RETURN_IF_ERROR(ReadArray(what, depth + 1, &skipped));
        }
        return absl::OkStatus();
      default: {
        const uint64_t size = GgufScalarBytes(value->element_type);
        LH_RETURN_IF_ERROR(CheckCount(what, value->count, size));
        return Take(value->count * size, what, &value->elements);
      }
    }
  }

  absl::Status ReadAlignment() {
    LH_ASSIGN_OR_RETURN(const int64_t alignment,
                        file_.IntegerOr("general.alignment", 8, kAlignmentMax, kAlignmentDefault));
    if ((alignment & (alignment - 1)) != 0) {
      return Error(absl::StrCat("general.alignment is ", alignment, "; it must be a power of two"));
    }
    alignment_ = static_cast<uint64_t>(alignment);
    return absl::OkStatus();
  }

  absl::Status ReadTensor(uint64_t index) {
    const std::string what = absl::StrCat("tensor ", index);
    GgufTensor tensor;
    LH_RETURN_IF_ERROR(ReadString(what, &tensor.name));
    if (tensor.name.empty() || tensor.name.size() > kTensorNameBytesMax) {
      return Error(absl::StrCat(what, " has a name of ", tensor.name.size(), " bytes; 1 to ",
                                kTensorNameBytesMax, " are valid"));
    }
    const std::string shown = absl::StrCat("tensor ", Shown(tensor.name));
    uint32_t dimensions;
    LH_RETURN_IF_ERROR(Read(shown, &dimensions));
    if (dimensions == 0 || dimensions > kDimensionsMax) {
      return Error(absl::StrCat(shown, " has ", dimensions, " dimensions; 1 to ", kDimensionsMax,
                                " are valid"));
    }
    for (uint32_t i = 0; i < dimensions; ++i) {
      uint64_t extent;
      LH_RETURN_IF_ERROR(Read(shown, &extent));
      if (extent == 0 || extent > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Error(absl::StrCat(shown, " has extent ", extent, " in dimension ", i));
      }
      tensor.shape.push_back(static_cast<int64_t>(extent));
    }
    uint32_t type;
    LH_RETURN_IF_ERROR(Read(shown, &type));
    const std::optional<DType> dtype = DTypeOfGgml(type);
    if (!dtype.has_value()) {
      return Error(absl::StrCat(shown, " has GGML type ", type,
                                ", which is not supported; convert the model to one of ",
                                "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K"));
    }
    tensor.dtype = *dtype;
    uint64_t offset;
    LH_RETURN_IF_ERROR(Read(shown, &offset));
    offsets_.push_back(offset);
    LH_RETURN_IF_ERROR(MeasureTensor(shown, &tensor));
    if (!file_.tensor_index_.try_emplace(tensor.name, index).second) {
      return Error(absl::StrCat(shown, " occurs twice"));
    }
    file_.tensors_.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  absl::Status MeasureTensor(absl::string_view shown, GgufTensor* tensor) const {
    const int64_t block = BlockElements(tensor->dtype);
    if (tensor->shape[0] % block != 0) {
      return Error(absl::StrCat(shown, " has rows of ", tensor->shape[0], " elements, but ",
                                DTypeName(tensor->dtype), " needs a multiple of ", block));
    }
    int64_t bytes = tensor->shape[0] / block;
    bool overflow = __builtin_mul_overflow(bytes, BlockBytes(tensor->dtype), &bytes);
    for (size_t i = 1; i < tensor->shape.size(); ++i) {
      overflow = overflow || __builtin_mul_overflow(bytes, tensor->shape[i], &bytes);
    }
    if (overflow) return Error(absl::StrCat(shown, " has a shape whose size exceeds 63 bits"));
    tensor->bytes = bytes;
    return absl::OkStatus();
  }

  // The tensors' bytes begin at the next multiple of the alignment behind the table.
  absl::Status PlaceTensors() {
    const uint64_t padding = (alignment_ - at_ % alignment_) % alignment_;
    const std::byte* data;
    if (tensor_count_ > 0) LH_RETURN_IF_ERROR(Take(padding, "padding before the tensors", &data));
    const uint64_t data_bytes = left();
    for (size_t i = 0; i < file_.tensors_.size(); ++i) {
      GgufTensor& tensor = file_.tensors_[i];
      const uint64_t offset = offsets_[i];
      if (offset % alignment_ != 0) {
        return Error(absl::StrCat("tensor ", Shown(tensor.name), " lies at offset ", offset,
                                  ", which is not a multiple of the alignment ", alignment_));
      }
      if (offset > data_bytes || static_cast<uint64_t>(tensor.bytes) > data_bytes - offset) {
        return Error(absl::StrCat(
            "tensor ", Shown(tensor.name), " needs ", tensor.bytes, " bytes at offset ", offset,
            " of ", data_bytes,
            " bytes of tensor data; the file is truncated or damaged: ", "download it again"));
      }
      tensor.data = bytes_.data() + at_ + offset;
    }
    return absl::OkStatus();
  }

  absl::Span<const std::byte> bytes_;
  uint64_t at_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t metadata_count_ = 0;
  uint64_t alignment_ = kAlignmentDefault;
  std::vector<uint64_t> offsets_;  // by tensor, from the start of the tensor data
  GgufFile file_;
};

absl::StatusOr<GgufFile> GgufFile::Parse(absl::Span<const std::byte> bytes,
                                         const std::string& name) {
  return GgufParser(bytes, name).Run();
}

}  // namespace longhaul
