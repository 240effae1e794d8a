// The text of --prefill and --decode. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

struct NamedAddress {
  std::string name;
  std::string address;  // "host:port"
};

// "name=host:port,name=host:port"; "" gives none. Errors name the flag and the entry: no name,
// no port, a name used twice.
absl::StatusOr<std::vector<NamedAddress>> ParseWorkerList(absl::string_view flag,
                                                          absl::string_view text);

}  // namespace longhaul
