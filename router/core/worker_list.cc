#include "router/core/worker_list.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"

namespace longhaul {

absl::StatusOr<std::vector<NamedAddress>> ParseWorkerList(absl::string_view text) {
  std::vector<NamedAddress> workers;
  absl::flat_hash_set<std::string> names;
  for (absl::string_view entry : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    entry = absl::StripAsciiWhitespace(entry);
    const std::pair<absl::string_view, absl::string_view> halves =
        absl::StrSplit(entry, absl::MaxSplits('=', 1));
    if (halves.first.empty() || halves.second.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("\"", entry, "\" is not name=host:port"));
    }
    LH_ASSIGN_OR_RETURN(const auto address, ParseHostPort(halves.second));
    if (address.second == 0) {
      return absl::InvalidArgumentError(absl::StrCat("\"", entry, "\" names no port"));
    }
    if (!names.insert(std::string(halves.first)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("the name \"", halves.first, "\" is used twice"));
    }
    workers.push_back({std::string(halves.first), std::string(halves.second)});
  }
  return workers;
}

absl::StatusOr<std::pair<std::string, int>> ParseHostPort(absl::string_view text) {
  const size_t colon = text.rfind(':');
  int port = -1;
  if (colon == absl::string_view::npos || colon == 0 ||
      !absl::SimpleAtoi(text.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is not host:port with a port of 0 to 65535"));
  }
  absl::string_view host = text.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[") && !absl::ConsumeSuffix(&host, "]")) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" opens a [ that it never closes"));
  }
  return std::make_pair(std::string(host), port);
}

}  // namespace longhaul
