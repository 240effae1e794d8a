// Reading of the JSON files of a Hugging Face folder: untrusted, so depth and size are bounded and
// every field's type is checked. Any thread.
#pragma once

#include <boost/json.hpp>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

// `where` names the text in errors.
absl::StatusOr<boost::json::value> ParseJson(absl::string_view text, const std::string& where);

// The same for a whole file of at most `bytes_max`. NotFound for no such file.
absl::StatusOr<boost::json::value> ParseJsonFile(const std::string& path, int64_t bytes_max);

absl::string_view TextOf(const boost::json::string& text);

// The fields of one object, which must outlive this. A field that is null counts as absent.
class JsonFields {
 public:
  // InvalidArgument when `value` is no object.
  static absl::StatusOr<JsonFields> Make(const boost::json::value& value, std::string where);

  const boost::json::value* Find(absl::string_view name) const;  // null: absent
  const boost::json::object& object() const { return *object_; }
  const std::string& where() const { return where_; }

  // Errors: NotFound without the field, InvalidArgument for another type or a value out of range.
  absl::StatusOr<int64_t> Integer(absl::string_view name, int64_t min, int64_t max) const;
  absl::StatusOr<double> Number(absl::string_view name) const;
  absl::StatusOr<absl::string_view> Text(absl::string_view name) const;
  absl::StatusOr<JsonFields> Object(absl::string_view name) const;
  absl::StatusOr<const boost::json::array*> Array(absl::string_view name) const;

  // The same with a value for an absent field.
  absl::StatusOr<int64_t> IntegerOr(absl::string_view name, int64_t min, int64_t max,
                                    int64_t absent) const;
  absl::StatusOr<double> NumberOr(absl::string_view name, double absent) const;
  absl::StatusOr<absl::string_view> TextOr(absl::string_view name, absl::string_view absent) const;
  absl::StatusOr<bool> BoolOr(absl::string_view name, bool absent) const;

  // InvalidArgument with the place in front.
  absl::Status Error(absl::string_view message) const;

 private:
  JsonFields(const boost::json::object& object, std::string where)
      : object_(&object), where_(std::move(where)) {}
  absl::StatusOr<const boost::json::value*> Require(absl::string_view name) const;
  absl::Status WrongType(absl::string_view name, absl::string_view wanted) const;

  const boost::json::object* object_;
  std::string where_;
};

}  // namespace longhaul
