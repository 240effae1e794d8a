#include "common/process/flags.h"

#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace longhaul {

void ParseCommandLine(int argc, char** argv, absl::string_view about) {
  absl::FlagsUsageConfig config;
  // absl's own choice, flags of a file that is called as the program, is none of ours.
  config.contains_help_flags = [](absl::string_view file) {
    return !absl::StrContains(file, "absl/flags/");
  };
  absl::SetFlagsUsageConfig(config);
  absl::SetProgramUsageMessage(about);
  absl::ParseCommandLine(argc, argv);
}

absl::StatusOr<HostPort> ParseHostPort(const std::string& flag, const std::string& value) {
  const size_t colon = value.rfind(':');
  HostPort parsed;
  const bool port_valid =
      colon != std::string::npos &&
      absl::SimpleAtoi(absl::string_view(value).substr(colon + 1), &parsed.port) &&
      parsed.port >= 0 && parsed.port <= 65535;
  if (!port_valid || colon == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        flag, "=", value, " is not host:port with a port of 0 to 65535, as in 127.0.0.1:8000"));
  }
  absl::string_view host = absl::string_view(value).substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  parsed.host = std::string(host);
  return parsed;
}

absl::StatusOr<std::vector<int>> ParseNumbers(const std::string& flag,
                                              const std::vector<std::string>& values) {
  std::vector<int> numbers;
  for (const std::string& value : values) {
    int number = 0;
    if (!absl::SimpleAtoi(value, &number) || number < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(flag, " has \"", value, "\"; valid is a list as 0,1"));
    }
    numbers.push_back(number);
  }
  return numbers;
}

}  // namespace longhaul
