// The text of --prefill, --decode and --http. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

struct NamedAddress {
  std::string name;
  std::string address;  // "host:port"
};

// "name=host:port,name=host:port"; "" gives none. Errors name the entry: no name, no port, a name
// used twice.
absl::StatusOr<std::vector<NamedAddress>> ParseWorkerList(absl::string_view text);

// "127.0.0.1:8000", "[::1]:8000": host and port in [0, 65535].
absl::StatusOr<std::pair<std::string, int>> ParseHostPort(absl::string_view text);

}  // namespace longhaul
