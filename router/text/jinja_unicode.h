// Python's view of text as characters, over UTF-8. Input is valid UTF-8 or has each bad byte count
// as one character.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/base/utf8.h"

namespace longhaul::jinja {

bool IsSpace(char32_t c);      // str.isspace
bool IsPrintable(char32_t c);  // str.isprintable
bool IsAlpha(char32_t c);
bool IsDigit(char32_t c);
bool IsUpper(char32_t c);
bool IsLower(char32_t c);

std::string Upper(absl::string_view text);
std::string Lower(absl::string_view text);
std::string Title(absl::string_view text);       // str.title: a word starts after a non-letter
std::string Capitalize(absl::string_view text);  // the first character up, the rest down

// str.strip and its one-sided forms; an empty `characters` means white space.
absl::string_view Strip(absl::string_view text, absl::string_view characters, bool left,
                        bool right);

// Calls `each` with every character of `text`, as a string_view into it.
template <typename Each>
void EachCharacter(absl::string_view text, Each&& each) {
  while (!text.empty()) {
    const absl::string_view character = text.substr(0, ReadUtf8(text).bytes);
    each(character);
    text.remove_prefix(character.size());
  }
}

// The same as a list; 16 bytes a character.
std::vector<absl::string_view> Characters(absl::string_view text);

void AppendUtf8(char32_t c, std::string* out);

}  // namespace longhaul::jinja
