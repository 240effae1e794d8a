// ApiKeys: who may use the API. Immutable, any thread.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

class ApiKeys {
 public:
  // Accepts everybody.
  ApiKeys() = default;
  // One key a line; empty lines and lines that start with # do not count. A file without any key is
  // an error: it would lock everybody out, or let everybody in.
  static absl::StatusOr<ApiKeys> Parse(absl::string_view text);

  // `authorization`: the header's value, "Bearer <key>". Unauthenticated, without saying how the
  // key differs; the time taken does not tell either.
  absl::Status Check(absl::string_view authorization) const;

 private:
  std::vector<std::string> keys_;
};

}  // namespace longhaul
