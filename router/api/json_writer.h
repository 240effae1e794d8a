// Writes JSON straight into one string: what the router sends once per token must not build a tree
// first. Commas are placed by the writer; the caller keeps objects and arrays balanced. Any bytes
// may be given as a string: what is not UTF-8 becomes U+FFFD, so the output is always valid JSON.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace longhaul {

class JsonWriter {
 public:
  JsonWriter() { out_.reserve(256); }

  JsonWriter& BeginObject();
  JsonWriter& EndObject();
  JsonWriter& BeginArray();
  JsonWriter& EndArray();
  JsonWriter& Key(absl::string_view name);
  JsonWriter& String(absl::string_view bytes);
  JsonWriter& Int(int64_t value);
  JsonWriter& Float(float value);  // must be finite; the shortest digits that read back as it
  JsonWriter& Bool(bool value);
  JsonWriter& Null();

  std::string Take() { return std::move(out_); }

 private:
  void Separate();

  std::string out_;
};

}  // namespace longhaul
