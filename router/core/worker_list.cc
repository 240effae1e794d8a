#include "router/core/worker_list.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"
#include "common/process/flags.h"

namespace longhaul {

absl::StatusOr<std::vector<NamedAddress>> ParseWorkerList(absl::string_view flag,
                                                          absl::string_view text) {
  std::vector<NamedAddress> workers;
  absl::flat_hash_set<std::string> names;
  for (absl::string_view entry : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    entry = absl::StripAsciiWhitespace(entry);
    const std::pair<absl::string_view, absl::string_view> halves =
        absl::StrSplit(entry, absl::MaxSplits('=', 1));
    if (halves.first.empty() || halves.second.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(flag, ": \"", entry, "\" is not name=host:port"));
    }
    LH_ASSIGN_OR_RETURN(const HostPort address,
                        ParseHostPort(std::string(flag), std::string(halves.second)));
    if (address.port == 0) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": \"", entry, "\" names no port"));
    }
    if (!names.insert(std::string(halves.first)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(flag, ": the name \"", halves.first, "\" is used twice"));
    }
    workers.push_back({std::string(halves.first), std::string(halves.second)});
  }
  return workers;
}

}  // namespace longhaul
