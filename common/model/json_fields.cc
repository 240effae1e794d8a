#include "common/model/json_fields.h"

#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/mapped_file.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

constexpr size_t kDepthMax = 32;

boost::json::string_view KeyOf(absl::string_view name) { return {name.data(), name.size()}; }

}  // namespace

absl::StatusOr<boost::json::value> ParseJson(absl::string_view text, const std::string& where) {
  boost::json::parse_options options;
  options.max_depth = kDepthMax;
  boost::json::parser parser({}, options);
  boost::json::error_code error;
  const size_t parsed = parser.write({text.data(), text.size()}, error);
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat(where, " is not valid JSON: ", error.message(),
                                                   " at byte ", parsed, " of ", text.size()));
  }
  return parser.release();
}

absl::StatusOr<boost::json::value> ParseJsonFile(const std::string& path, int64_t bytes_max) {
  LH_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  const auto bytes = static_cast<int64_t>(file->bytes().size());
  if (bytes > bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", bytes, " bytes; at most ", bytes_max, " are read"));
  }
  return ParseJson({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()},
                   path);
}

absl::string_view TextOf(const boost::json::string& text) { return {text.data(), text.size()}; }

absl::StatusOr<JsonFields> JsonFields::Make(const boost::json::value& value, std::string where) {
  const boost::json::object* object = value.if_object();
  if (object == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(where, " is not a JSON object"));
  }
  return JsonFields(*object, std::move(where));
}

const boost::json::value* JsonFields::Find(absl::string_view name) const {
  const boost::json::value* value = object_->if_contains(KeyOf(name));
  return value == nullptr || value->is_null() ? nullptr : value;
}

absl::Status JsonFields::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(where_, ": ", message));
}

absl::StatusOr<const boost::json::value*> JsonFields::Require(absl::string_view name) const {
  const boost::json::value* value = Find(name);
  if (value == nullptr) {
    return absl::NotFoundError(absl::StrCat(where_, ": the field ", name, " is missing"));
  }
  return value;
}

absl::Status JsonFields::WrongType(absl::string_view name, absl::string_view wanted) const {
  return Error(absl::StrCat("the field ", name, " is not ", wanted));
}

absl::StatusOr<int64_t> JsonFields::Integer(absl::string_view name, int64_t min,
                                            int64_t max) const {
  LH_ASSIGN_OR_RETURN(const boost::json::value* value, Require(name));
  if (!value->is_int64() && !value->is_uint64()) return WrongType(name, "an integer");
  boost::json::error_code error;
  const auto number = value->to_number<int64_t>(error);
  if (error || number < min || number > max) {
    return Error(absl::StrCat("the field ", name, " is ",
                              error ? std::string("above 2^63") : absl::StrCat(number), "; ", min,
                              " to ", max, " is valid"));
  }
  return number;
}

absl::StatusOr<double> JsonFields::Number(absl::string_view name) const {
  LH_ASSIGN_OR_RETURN(const boost::json::value* value, Require(name));
  boost::json::error_code error;
  const auto number = value->to_number<double>(error);
  if (error || !std::isfinite(number)) return WrongType(name, "a number");
  return number;
}

absl::StatusOr<absl::string_view> JsonFields::Text(absl::string_view name) const {
  LH_ASSIGN_OR_RETURN(const boost::json::value* value, Require(name));
  const boost::json::string* text = value->if_string();
  if (text == nullptr) return WrongType(name, "a string");
  return TextOf(*text);
}

absl::StatusOr<JsonFields> JsonFields::Object(absl::string_view name) const {
  LH_ASSIGN_OR_RETURN(const boost::json::value* value, Require(name));
  return Make(*value, absl::StrCat(where_, ": ", name));
}

absl::StatusOr<const boost::json::array*> JsonFields::Array(absl::string_view name) const {
  LH_ASSIGN_OR_RETURN(const boost::json::value* value, Require(name));
  const boost::json::array* array = value->if_array();
  if (array == nullptr) return WrongType(name, "an array");
  return array;
}

absl::StatusOr<int64_t> JsonFields::IntegerOr(absl::string_view name, int64_t min, int64_t max,
                                              int64_t absent) const {
  if (Find(name) == nullptr) return absent;
  return Integer(name, min, max);
}

absl::StatusOr<double> JsonFields::NumberOr(absl::string_view name, double absent) const {
  if (Find(name) == nullptr) return absent;
  return Number(name);
}

absl::StatusOr<absl::string_view> JsonFields::TextOr(absl::string_view name,
                                                     absl::string_view absent) const {
  if (Find(name) == nullptr) return absent;
  return Text(name);
}

absl::StatusOr<bool> JsonFields::BoolOr(absl::string_view name, bool absent) const {
  const boost::json::value* value = Find(name);
  if (value == nullptr) return absent;
  if (!value->is_bool()) return WrongType(name, "true or false");
  return value->get_bool();
}

}  // namespace longhaul
