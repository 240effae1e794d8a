#include "router/text/split_scanners.h"

#include <array>
#include <cstdint>

#include "router/text/unicode_classes.h"

namespace longhaul {
namespace {

constexpr std::array<uint8_t, 128> MakeAsciiBits() {
  std::array<uint8_t, 128> bits{};
  for (int c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool number = c >= '0' && c <= '9';
    const bool newline = c == '\r' || c == '\n';
    const bool space = (c >= 0x9 && c <= 0xD) || c == ' ';
    bits[c] = letter    ? kLetterBit
              : number  ? kNumberBit | kDigitBit
              : newline ? kSpaceBit | kNewlineBit
              : space   ? kSpaceBit
                        : kOtherBit;
  }
  return bits;
}
constexpr std::array<uint8_t, 128> kAsciiBits = MakeAsciiBits();

struct Glyph {
  uint8_t bits;
  uint8_t bytes;
};

Glyph GlyphBeyondAscii(const char* p, const char* end) {
  const DecodedChar c = DecodeUtf8(p, end);
  return {UnicodeClasses::Get().BitsOf(c.code_point), static_cast<uint8_t>(c.bytes)};
}

// The class of the character at `p`; no bits at the end of the text.
inline Glyph GlyphAt(const char* p, const char* end) {
  if (p == end) return {0, 0};
  const uint8_t byte = static_cast<uint8_t>(*p);
  if (byte < 0x80) return {kAsciiBits[byte], 1};
  return GlyphBeyondAscii(p, end);
}

// Past the characters from `p` on that have any of `bits`.
inline const char* SkipRun(const char* p, const char* end, uint8_t bits) {
  while (p != end) {
    const Glyph glyph = GlyphAt(p, end);
    if ((glyph.bits & bits) == 0) break;
    p += glyph.bytes;
  }
  return p;
}

// 's 't 'm 'd 're 've 'll; the end of the contraction at the apostrophe `p`, or null.
template <bool kIgnoreCase>
const char* ScanContraction(const char* p, const char* end) {
  const auto letter_at = [p, end](int i) -> char {
    if (end - p <= i) return '\0';
    const char c = p[i];
    return kIgnoreCase && c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  };
  const char first = letter_at(1);
  switch (first) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return p + 2;
    case 'r':
    case 'v':
      return letter_at(2) == 'e' ? p + 3 : nullptr;
    case 'l':
      return letter_at(2) == 'l' ? p + 3 : nullptr;
    case '\xC5':  // U+017F, the long s, is an s to a regex that ignores case
      return kIgnoreCase && letter_at(2) == '\xBF' ? p + 3 : nullptr;
    default:
      return nullptr;
  }
}

// At a space `p`. With kNewlines first \s*[\r\n]+ : up to the last newline of the run. Then
// \s+(?!\S)|\s+ : the run without its last character, which stays for the word that follows, or all
// of the run when nothing follows or when it is one character long.
template <bool kNewlines>
const char* ScanSpaces(const char* p, const char* end) {
  const char* at = p;
  const char* last = p;
  const char* past_newline = nullptr;
  while (at != end) {
    const Glyph glyph = GlyphAt(at, end);
    if ((glyph.bits & kSpaceBit) == 0) break;
    last = at;
    at += glyph.bytes;
    if (kNewlines && (glyph.bits & kNewlineBit) != 0) past_newline = at;
  }
  if (past_newline != nullptr) return past_newline;
  return at == end || last == p ? at : last;
}

template <int kNumbersMax>
const char* ScanLlama3Family(const char* p, const char* end) {
  if (*p == '\'') {
    if (const char* past = ScanContraction</*kIgnoreCase=*/true>(p, end)) return past;
  }
  const Glyph glyph = GlyphAt(p, end);
  const char* next = p + glyph.bytes;
  if ((glyph.bits & kLetterBit) != 0) return SkipRun(next, end, kLetterBit);
  if ((glyph.bits & kNumberBit) != 0) {
    for (int numbers = 1; numbers < kNumbersMax; ++numbers) {
      const Glyph more = GlyphAt(next, end);
      if ((more.bits & kNumberBit) == 0) break;
      next += more.bytes;
    }
    return next;
  }
  const Glyph second = GlyphAt(next, end);
  if ((glyph.bits & kNewlineBit) == 0 && (second.bits & kLetterBit) != 0) {
    return SkipRun(next + second.bytes, end, kLetterBit);
  }
  if ((glyph.bits & kOtherBit) != 0 || (*p == ' ' && (second.bits & kOtherBit) != 0)) {
    return SkipRun(SkipRun(next, end, kOtherBit), end, kNewlineBit);
  }
  return ScanSpaces</*kNewlines=*/true>(p, end);
}

}  // namespace

const char* ScanGpt2(const char* p, const char* end) {
  if (*p == '\'') {
    if (const char* past = ScanContraction</*kIgnoreCase=*/false>(p, end)) return past;
  }
  constexpr uint8_t kRuns[] = {kLetterBit, kNumberBit, kOtherBit};
  const char* word = *p == ' ' ? p + 1 : p;
  const Glyph glyph = GlyphAt(word, end);
  for (uint8_t run : kRuns) {
    if ((glyph.bits & run) != 0) return SkipRun(word + glyph.bytes, end, run);
  }
  return ScanSpaces</*kNewlines=*/false>(p, end);
}

const char* ScanLlama3(const char* p, const char* end) { return ScanLlama3Family<3>(p, end); }

const char* ScanQwen2(const char* p, const char* end) { return ScanLlama3Family<1>(p, end); }

const char* ScanDigits(const char* p, const char* end) {
  const Glyph glyph = GlyphAt(p, end);
  const char* at = p + glyph.bytes;
  if ((glyph.bits & kDigitBit) != 0) return at;
  while (at != end) {
    const Glyph next = GlyphAt(at, end);
    if ((next.bits & kDigitBit) != 0) break;
    at += next.bytes;
  }
  return at;
}

}  // namespace longhaul
