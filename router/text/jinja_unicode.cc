#include "router/text/jinja_unicode.h"

#include <utf8proc.h>

#include "common/base/utf8.h"

namespace longhaul::jinja {
namespace {

utf8proc_category_t Category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

bool IsCased(char32_t c) { return IsUpper(c) || IsLower(c) || Category(c) == UTF8PROC_CATEGORY_LT; }

void AppendUpper(char32_t c, bool title, std::string* out) {
  // The one character of common text whose upper case is two.
  if (c == 0xDF) {
    out->append(title ? "Ss" : "SS");
    return;
  }
  const auto point = static_cast<utf8proc_int32_t>(c);
  AppendUtf8(static_cast<char32_t>(title ? utf8proc_totitle(point) : utf8proc_toupper(point)), out);
}

void AppendLower(char32_t c, std::string* out) {
  AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
}

template <typename PerCharacter>
std::string Mapped(absl::string_view text, PerCharacter&& per_character) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = ReadUtf8(text);
    if (step.kind == Utf8Step::Kind::kCharacter) {
      per_character(step.code_point, &out);
    } else {
      out.append(text.data(), step.bytes);
    }
    text.remove_prefix(step.bytes);
  }
  return out;
}

size_t LastCharacterBytes(absl::string_view text) {
  size_t bytes = 1;
  while (bytes < 4 && bytes < text.size() &&
         (static_cast<uint8_t>(text[text.size() - bytes]) & 0xC0) == 0x80) {
    ++bytes;
  }
  return bytes;
}

}  // namespace

bool IsSpace(char32_t c) {
  if ((c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0) return true;
  return c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

bool IsAlpha(char32_t c) {
  const utf8proc_category_t category = Category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDigit(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_ND; }
bool IsUpper(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_LU; }
bool IsLower(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_LL; }

std::string Upper(absl::string_view text) {
  return Mapped(text, [](char32_t c, std::string* out) { AppendUpper(c, false, out); });
}

std::string Lower(absl::string_view text) { return Mapped(text, AppendLower); }

std::string Title(absl::string_view text) {
  bool in_word = false;
  return Mapped(text, [&](char32_t c, std::string* out) {
    in_word ? AppendLower(c, out) : AppendUpper(c, true, out);
    in_word = IsCased(c);
  });
}

std::string Capitalize(absl::string_view text) {
  bool first = true;
  return Mapped(text, [&](char32_t c, std::string* out) {
    first ? AppendUpper(c, true, out) : AppendLower(c, out);
    first = false;
  });
}

absl::string_view Strip(absl::string_view text, absl::string_view characters, bool left,
                        bool right) {
  auto goes = [&](absl::string_view character) {
    if (!characters.empty()) return characters.find(character) != absl::string_view::npos;
    return IsSpace(ReadUtf8(character).code_point);
  };
  while (left && !text.empty()) {
    const absl::string_view character = text.substr(0, ReadUtf8(text).bytes);
    if (!goes(character)) break;
    text.remove_prefix(character.size());
  }
  while (right && !text.empty()) {
    const absl::string_view character = text.substr(text.size() - LastCharacterBytes(text));
    if (!goes(character)) break;
    text.remove_suffix(character.size());
  }
  return text;
}

std::vector<absl::string_view> Characters(absl::string_view text) {
  std::vector<absl::string_view> characters;
  while (!text.empty()) {
    characters.push_back(text.substr(0, ReadUtf8(text).bytes));
    text.remove_prefix(characters.back().size());
  }
  return characters;
}

void AppendUtf8(char32_t c, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  if (size <= 0 || (c >= 0xD800 && c <= 0xDFFF)) {
    out->append(kUtf8Replacement);
    return;
  }
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

}  // namespace longhaul::jinja
