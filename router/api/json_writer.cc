#include "router/api/json_writer.h"

#include <charconv>
#include <cmath>

#include "common/base/check.h"
#include "common/base/utf8.h"

namespace longhaul {

void JsonWriter::Separate() {
  if (out_.empty()) return;
  const char last = out_.back();
  if (last != '{' && last != '[' && last != ':') out_.push_back(',');
}

JsonWriter& JsonWriter::BeginObject() {
  Separate();
  out_.push_back('{');
  return *this;
}

JsonWriter& JsonWriter::EndObject() {
  out_.push_back('}');
  return *this;
}

JsonWriter& JsonWriter::BeginArray() {
  Separate();
  out_.push_back('[');
  return *this;
}

JsonWriter& JsonWriter::EndArray() {
  out_.push_back(']');
  return *this;
}

JsonWriter& JsonWriter::Key(absl::string_view name) {
  String(name);
  out_.push_back(':');
  return *this;
}

JsonWriter& JsonWriter::String(absl::string_view bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  Separate();
  out_.push_back('"');
  size_t copied = 0;  // bytes before it are in out_
  size_t i = 0;
  auto flush = [&] { out_.append(bytes.data() + copied, i - copied); };
  while (i < bytes.size()) {
    const uint8_t c = static_cast<uint8_t>(bytes[i]);
    if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
      ++i;
      continue;
    }
    if (c >= 0x80) {
      const Utf8Step step = ReadUtf8(bytes.substr(i));
      if (step.kind == Utf8Step::Kind::kCharacter) {
        i += step.bytes;
        continue;
      }
      flush();
      out_.append(kUtf8Replacement);
      copied = i += step.bytes;
      continue;
    }
    flush();
    out_.push_back('\\');
    switch (c) {
      case '"':
      case '\\':
        out_.push_back(static_cast<char>(c));
        break;
      case '\n':
        out_.push_back('n');
        break;
      case '\t':
        out_.push_back('t');
        break;
      case '\r':
        out_.push_back('r');
        break;
      default:
        out_.append("u00");
        out_.push_back(kHex[c >> 4]);
        out_.push_back(kHex[c & 15]);
    }
    copied = ++i;
  }
  flush();
  out_.push_back('"');
  return *this;
}

JsonWriter& JsonWriter::Int(int64_t value) {
  Separate();
  char digits[24];
  out_.append(digits, std::to_chars(digits, digits + sizeof(digits), value).ptr);
  return *this;
}

JsonWriter& JsonWriter::Float(float value) {
  LH_CHECK(std::isfinite(value), "JSON has no infinity and no NaN");
  Separate();
  char digits[40];
  out_.append(digits, std::to_chars(digits, digits + sizeof(digits), value).ptr);
  return *this;
}

JsonWriter& JsonWriter::Bool(bool value) {
  Separate();
  out_.append(value ? "true" : "false");
  return *this;
}

JsonWriter& JsonWriter::Null() {
  Separate();
  out_.append("null");
  return *this;
}

}  // namespace longhaul
