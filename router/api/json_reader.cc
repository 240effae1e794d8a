#include "router/api/json_reader.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "router/api/error.h"

namespace longhaul {

namespace json = boost::json;

absl::StatusOr<json::value> ParseJsonObject(absl::string_view body, int depth_max,
                                            json::storage_ptr storage) {
  json::parse_options options;
  options.max_depth = depth_max;
  json::parser parser({}, options);
  parser.reset(std::move(storage));
  json::error_code error;
  const size_t used = parser.write_some(body.data(), body.size(), error);
  if (!error && used < body.size() &&
      body.find_first_not_of(" \t\r\n", used) != absl::string_view::npos) {
    error = json::error::extra_data;
  }
  if (error == json::error::too_deep) {
    return absl::InvalidArgumentError(absl::StrCat("the body nests deeper than the limit of ",
                                                   depth_max, " levels, at byte ", used));
  }
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat("the body is not valid JSON: ", error.message(),
                                                   " at byte ", used, " of ", body.size()));
  }
  json::value value = parser.release();
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the body must be a JSON object, not ", JsonKindName(value)));
  }
  return value;
}

absl::string_view JsonKindName(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a boolean";
    case json::kind::int64:
    case json::kind::uint64:
    case json::kind::double_:
      return "a number";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
  }
  return "a value";
}

std::optional<int64_t> JsonInt(const json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (value.is_double()) {
    const double number = value.get_double();
    // 2^63 as a double: the first one that an int64 cannot hold.
    if (number == std::floor(number) && std::abs(number) < 9223372036854775808.0) {
      return static_cast<int64_t>(number);
    }
  }
  return std::nullopt;
}

absl::StatusOr<std::vector<int32_t>> JsonTokenIds(const json::array& array,
                                                  int64_t vocabulary_tokens,
                                                  absl::string_view param) {
  const int64_t end = vocabulary_tokens > 0 ? vocabulary_tokens : (int64_t{1} << 31);
  std::vector<int32_t> ids;
  ids.reserve(array.size());
  for (const json::value& value : array) {
    // Nearly all are; what is said of the others takes its time.
    if (const int64_t* plain = value.if_int64(); plain != nullptr && *plain >= 0 && *plain < end) {
      ids.push_back(static_cast<int32_t>(*plain));
      continue;
    }
    const std::optional<int64_t> id = JsonInt(value);
    if (!id.has_value()) {
      return InvalidFieldError(param, absl::StrCat("must hold token ids only; element ", ids.size(),
                                                   " is ", JsonKindName(value)));
    }
    if (*id < 0 || *id >= end) {
      return InvalidFieldError(param, absl::StrCat("must hold token ids from 0 to ", end - 1,
                                                   "; element ", ids.size(), " is ", *id));
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

JsonReader::JsonReader(const json::object& object, std::string path)
    : object_(object), path_(std::move(path)) {}

const json::value* JsonReader::Find(absl::string_view name) const {
  const json::value* value = object_.if_contains(json::string_view(name.data(), name.size()));
  return value == nullptr || value->is_null() ? nullptr : value;
}

void JsonReader::Fail(absl::Status error) {
  if (status_.ok()) status_ = std::move(error);
}

std::string JsonReader::Path(absl::string_view name) const { return absl::StrCat(path_, name); }

void JsonReader::Bool(absl::string_view name, bool* out) {
  const json::value* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_bool()) {
    return Fail(InvalidFieldError(Path(name),
                                  absl::StrCat("must be a boolean, not ", JsonKindName(*value))));
  }
  *out = value->get_bool();
}

void JsonReader::Int(absl::string_view name, int64_t min, int64_t max,
                     std::optional<int64_t>* out) {
  const json::value* value = Find(name);
  if (value == nullptr) return;
  const std::optional<int64_t> number = JsonInt(*value);
  // What an int64 cannot hold is out of range rather than no integer.
  const bool huge = value->is_uint64();
  if (!number.has_value() && !huge) {
    const std::string got =
        value->is_number() ? json::serialize(*value) : std::string(JsonKindName(*value));
    return Fail(InvalidFieldError(Path(name), absl::StrCat("must be an integer, not ", got)));
  }
  if (huge || *number < min || *number > max) {
    const std::string range = max == std::numeric_limits<int64_t>::max()
                                  ? absl::StrCat("at least ", min)
                                  : absl::StrCat("from ", min, " to ", max);
    return Fail(InvalidFieldError(
        Path(name), absl::StrCat("must be ", range, ", got ", json::serialize(*value))));
  }
  *out = number;
}

void JsonReader::Int(absl::string_view name, int64_t min, int64_t max, int64_t* out) {
  std::optional<int64_t> number;
  Int(name, min, max, &number);
  if (number.has_value()) *out = *number;
}

void JsonReader::Int(absl::string_view name, int64_t min, int64_t max, int32_t* out) {
  std::optional<int64_t> number;
  Int(name, min, max, &number);
  if (number.has_value()) *out = static_cast<int32_t>(*number);
}

void JsonReader::Float(absl::string_view name, double min, double max, bool min_open, float* out) {
  const json::value* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_number()) {
    return Fail(InvalidFieldError(Path(name),
                                  absl::StrCat("must be a number, not ", JsonKindName(*value))));
  }
  const double number = value->to_number<double>();
  // A double above `min` may still round to it as a float, which is what the sampler gets.
  const bool above = min_open ? static_cast<float>(number) > min : number >= min;
  if (!above || !(number <= max)) {
    return Fail(InvalidFieldError(
        Path(name), absl::StrCat("must be ", min_open ? "above " : "from ", min, " to ", max,
                                 ", got ", json::serialize(*value))));
  }
  *out = static_cast<float>(number);
}

void JsonReader::String(absl::string_view name, size_t bytes_max, std::string* out) {
  const json::value* value = Find(name);
  if (value == nullptr) return;
  const json::string* text = value->if_string();
  if (text == nullptr) {
    return Fail(InvalidFieldError(Path(name),
                                  absl::StrCat("must be a string, not ", JsonKindName(*value))));
  }
  if (text->size() > bytes_max) {
    return Fail(InvalidFieldError(
        Path(name), absl::StrCat("must have at most ", bytes_max, " bytes, got ", text->size())));
  }
  out->assign(text->data(), text->size());
}

void JsonReader::TokenIds(absl::string_view name, int64_t vocabulary_tokens,
                          std::vector<int32_t>* out) {
  const json::value* value = Find(name);
  if (value == nullptr) return;
  const json::array* array = value->if_array();
  if (array == nullptr) {
    return Fail(InvalidFieldError(
        Path(name), absl::StrCat("must be an array of token ids, not ", JsonKindName(*value))));
  }
  absl::StatusOr<std::vector<int32_t>> ids = JsonTokenIds(*array, vocabulary_tokens, Path(name));
  if (!ids.ok()) return Fail(ids.status());
  *out = *std::move(ids);
}

}  // namespace longhaul
