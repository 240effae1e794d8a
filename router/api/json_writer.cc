#include "router/api/json_writer.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/base/check.h"

namespace longhaul {

int Utf8SequenceBytes(absl::string_view bytes) {
  if (bytes.empty()) return 0;
  auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return 1;
  const int size = lead >= 0xC2 && lead <= 0xDF   ? 2
                   : (lead >> 4) == 0xE           ? 3
                   : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                  : 0;
  if (size == 0 || bytes.size() < static_cast<size_t>(size)) return 0;
  for (int i = 1; i < size; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  // Overlong forms, surrogates and what lies above U+10FFFF (Unicode, table 3-7).
  if (lead == 0xE0 && at(1) < 0xA0) return 0;
  if (lead == 0xED && at(1) > 0x9F) return 0;
  if (lead == 0xF0 && at(1) < 0x90) return 0;
  if (lead == 0xF4 && at(1) > 0x8F) return 0;
  return size;
}

int64_t CountCharacters(absl::string_view bytes) {
  int64_t characters = 0;
  while (!bytes.empty()) {
    bytes.remove_prefix(std::max(1, Utf8SequenceBytes(bytes)));
    ++characters;
  }
  return characters;
}

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
      const int size = Utf8SequenceBytes(bytes.substr(i));
      if (size > 0) {
        i += size;
        continue;
      }
      flush();
      out_.append("\xEF\xBF\xBD");
    } else {
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
