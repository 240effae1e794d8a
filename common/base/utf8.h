// One step through UTF-8, for all who must not split a character: the detokenizer, the JSON writer,
// chat templates. Pure.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace longhaul {

inline constexpr char kUtf8Replacement[] = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Step {
  // kIncomplete: all of the bytes are a proper prefix of some character.
  enum class Kind : uint8_t { kCharacter, kIncomplete, kInvalid };
  Kind kind = Kind::kInvalid;
  // Of the character; or of the longest prefix of one, at least 1, which counts as one error (the
  // Unicode Standard, "maximal subpart"; what Python and the web do too).
  size_t bytes = 1;
  char32_t code_point = 0xFFFD;  // U+FFFD unless kCharacter
};

// `bytes` must not be empty. Ranges of second bytes: the Unicode Standard, table 3-7.
inline Utf8Step ReadUtf8(absl::string_view bytes) {
  auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return {Utf8Step::Kind::kCharacter, 1, lead};
  if (lead < 0xC2 || lead > 0xF4) return {};
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  char32_t code_point = lead & (0x7F >> size);
  for (size_t i = 1; i < size; ++i) {
    if (i == bytes.size()) return {Utf8Step::Kind::kIncomplete, i, 0xFFFD};
    uint8_t low = 0x80;
    uint8_t high = 0xBF;
    if (i == 1) {
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    if (at(i) < low || at(i) > high) return {Utf8Step::Kind::kInvalid, i, 0xFFFD};
    code_point = (code_point << 6) | (at(i) & 0x3F);
  }
  return {Utf8Step::Kind::kCharacter, size, code_point};
}

// Characters in `bytes`, errors counted as one each.
inline int64_t CountUtf8(absl::string_view bytes) {
  int64_t characters = 0;
  while (!bytes.empty()) {
    bytes.remove_prefix(ReadUtf8(bytes).bytes);
    ++characters;
  }
  return characters;
}

inline bool IsUtf8(absl::string_view bytes) {
  while (!bytes.empty()) {
    const Utf8Step step = ReadUtf8(bytes);
    if (step.kind != Utf8Step::Kind::kCharacter) return false;
    bytes.remove_prefix(step.bytes);
  }
  return true;
}

}  // namespace longhaul
