// Reads the fields of one JSON object into typed variables and remembers the first that is wrong,
// so that a request is read as a flat list of fields and answered with one precise error. An absent
// or null field leaves its variable as it was; nobody asks about fields that nobody knows.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

// Parses `body`, which must be an object, with at most `depth_max` levels. The error names the
// byte. The value lives in `storage`.
absl::StatusOr<boost::json::value> ParseJsonObject(absl::string_view body, int depth_max,
                                                   boost::json::storage_ptr storage);

// "a string", "a number", ... for error messages.
absl::string_view JsonKindName(const boost::json::value& value);

class JsonReader {
 public:
  // `object` must outlive the reader. `path` precedes the names of fields in errors, as in
  // "stream_options.".
  explicit JsonReader(const boost::json::object& object, std::string path = "");

  // The field, or null when it is absent or null.
  const boost::json::value* Find(absl::string_view name) const;

  void Bool(absl::string_view name, bool* out);
  void Int(absl::string_view name, int64_t min, int64_t max, int64_t* out);
  void Int(absl::string_view name, int64_t min, int64_t max, std::optional<int64_t>* out);
  void Int(absl::string_view name, int64_t min, int64_t max, int32_t* out);
  // `min_open`: min itself is refused.
  void Float(absl::string_view name, double min, double max, bool min_open, float* out);
  void String(absl::string_view name, size_t bytes_max, std::string* out);
  void TokenIds(absl::string_view name, int64_t vocabulary_tokens, std::vector<int32_t>* out);

  // Remembers `error` unless there is an earlier one.
  void Fail(absl::Status error);
  std::string Path(absl::string_view name) const;
  const absl::Status& status() const { return status_; }

 private:
  const boost::json::object& object_;
  std::string path_;
  absl::Status status_;
};

// An integer, also when written as 3.0; nothing for anything else.
std::optional<int64_t> JsonInt(const boost::json::value& value);

// The ids in `array`, each in [0, vocabulary_tokens) (0: any int32). `param` names it in errors.
absl::StatusOr<std::vector<int32_t>> JsonTokenIds(const boost::json::array& array,
                                                  int64_t vocabulary_tokens,
                                                  absl::string_view param);

inline absl::string_view View(const boost::json::string& text) {
  return absl::string_view(text.data(), text.size());
}

}  // namespace longhaul
