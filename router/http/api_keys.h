// ApiKeys: who may use the router's API. Loaded once at start, read-only afterwards, any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

class ApiKeys {
 public:
  // A file with one key a line, and optionally after white space the tenant's name ("key-<line>"
  // without one); '#' starts a comment line. Errors: NotFound, or InvalidArgument naming the line,
  // never the key: a key shorter than 16 or longer than 256 characters, not visible ASCII, or
  // given twice; a file without keys.
  static absl::StatusOr<ApiKeys> Load(const std::string& path);
  // The same from the file's text; `path` is for error messages.
  static absl::StatusOr<ApiKeys> Parse(absl::string_view text, absl::string_view path);

  // The tenant whose key an Authorization header carries as "Bearer KEY"; nothing when it is of no
  // tenant. Takes as long whichever key matches, and however far.
  std::optional<std::string> TenantOf(absl::string_view authorization) const;

 private:
  struct Entry {
    std::string key;
    std::string tenant;
  };
  std::vector<Entry> entries_;
};

}  // namespace longhaul
