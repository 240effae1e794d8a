// Flag values that absl does not parse by itself. Errors are InvalidArgument and name the flag, the
// value and the form that is expected.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longhaul {

struct HostPort {
  std::string host;
  int port = 0;
};

// "127.0.0.1:8000", "[::1]:0"
absl::StatusOr<HostPort> ParseHostPort(const std::string& flag, const std::string& value);

// "0", "1": numbers of processor cores, or of devices.
absl::StatusOr<std::vector<int>> ParseNumbers(const std::string& flag,
                                              const std::vector<std::string>& values);

}  // namespace longhaul
