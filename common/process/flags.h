// A program's flags, and flag values that absl does not parse by itself. Errors are InvalidArgument
// and name the flag, the value and the form that is expected.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

// First in a program's main. `about` is what --help says of it, before all flags of ours. Ends the
// process after --help, and when a flag is wrong.
void ParseCommandLine(int argc, char** argv, absl::string_view about);

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
