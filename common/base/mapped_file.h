// A whole file mapped read-only: how model files are read. The bytes stay valid while the object
// lives.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace longhaul {

class MappedFile {
 public:
  // Errors: NotFound or PermissionDenied with the path; InvalidArgument for a folder or an empty
  // file.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, absl::Span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}
  std::string path_;
  absl::Span<const std::byte> bytes_;
};

}  // namespace longhaul
