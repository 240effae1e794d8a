#include "common/process/ready_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace longhaul {

absl::Status WriteReadyFile(const std::string& path, const ReadyInfo& info) {
  if (path.empty()) return absl::OkStatus();
  const std::string json =
      absl::StrFormat(R"({"role":"%s","name":"%s","pid":%d,"grpc":"%s","http":"%s"})"
                      "\n",
                      info.role, info.name, getpid(), info.grpc, info.http);
  const std::string draft = absl::StrCat(path, ".", getpid());
  std::FILE* file = std::fopen(draft.c_str(), "w");
  if (file == nullptr)
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write --ready_file ", path));
  const bool written = std::fputs(json.c_str(), file) >= 0;
  const bool closed = std::fclose(file) == 0;
  if (!written || !closed || std::rename(draft.c_str(), path.c_str()) != 0) {
    const int error = errno;
    std::remove(draft.c_str());
    return absl::ErrnoToStatus(error, absl::StrCat("cannot write --ready_file ", path));
  }
  return absl::OkStatus();
}

}  // namespace longhaul
