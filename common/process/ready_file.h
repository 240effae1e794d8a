// The file by which a process tells its launcher that it listens, and where.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace longhaul {

struct ReadyInfo {
  std::string role;  // "router", "prefill", "decode", "standalone"
  std::string name;
  std::string grpc;  // "127.0.0.1:41234", empty when there is none
  std::string http;
};

// Writes `info` and the process id to `path` as one JSON object; a reader sees the whole file or
// none. An empty path writes nothing. Errors name the path and the cause.
absl::Status WriteReadyFile(const std::string& path, const ReadyInfo& info);

}  // namespace longhaul
