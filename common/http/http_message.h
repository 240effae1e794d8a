// One HTTP request as the server hands it on, and the headers of requests and answers. Plain data,
// no threads, nothing of Asio.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace longhaul {

// Header fields in the order they came; names compare without case. A handful of fields is searched
// faster than hashed.
class HttpHeaders {
 public:
  HttpHeaders() = default;
  HttpHeaders(std::initializer_list<std::pair<std::string, std::string>> fields)
      : fields_(fields) {}

  void Add(std::string name, std::string value) {
    fields_.emplace_back(std::move(name), std::move(value));
  }
  bool Has(absl::string_view name) const { return Find(name) != nullptr; }
  // The first field of that name, or "" for none.
  absl::string_view Get(absl::string_view name) const {
    const std::string* value = Find(name);
    return value == nullptr ? absl::string_view() : absl::string_view(*value);
  }
  int64_t size() const { return static_cast<int64_t>(fields_.size()); }
  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }

 private:
  const std::string* Find(absl::string_view name) const {
    for (const auto& [field_name, value] : fields_) {
      if (absl::EqualsIgnoreCase(field_name, name)) return &value;
    }
    return nullptr;
  }
  std::vector<std::pair<std::string, std::string>> fields_;
};

struct HttpRequest {
  std::string method;  // as sent: methods are case-sensitive
  std::string path;    // "/v1/models": before the '?', percent-escapes left as they came
  std::string query;   // after the '?', "" for none
  HttpHeaders headers;
  std::string body;        // whole, with the transfer coding removed
  std::string request_id;  // the client's x-request-id when it is well-formed, else a random one
  std::string peer;        // "127.0.0.1:40112"
};

}  // namespace longhaul
