// What a pre-tokenizer wants to know of a character: letter, number, space or other. One table for
// the process, built at first use from utf8proc's categories (Unicode 15) and completed with the
// letters and numbers of Unicode 16, which the library that we must agree with knows. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/base/utf8.h"

namespace longhaul {

// Bits of a character's class. Exactly one of the first four is set.
enum CharBits : uint8_t {
  kLetterBit = 1,    // \p{L}
  kNumberBit = 2,    // \p{N}
  kSpaceBit = 4,     // \s: White_Space
  kOtherBit = 8,     // [^\s\p{L}\p{N}], also every byte that is not valid UTF-8
  kNewlineBit = 16,  // \r or \n, beside kSpaceBit
  kDigitBit = 32,    // what the "Digits" splitter cuts off: numbers, by Unicode 17
};

struct DecodedChar {
  uint32_t code_point;  // U+FFFD when invalid
  uint32_t bytes;       // 1 when invalid
  bool valid;
};

// The character at `p` < `end`. Every invalid byte is a character of its own, so that it is a token
// of its own, unlike for those who show text (ReadUtf8), to whom a broken character is one error.
inline DecodedChar DecodeUtf8(const char* p, const char* end) {
  const Utf8Step step = ReadUtf8({p, static_cast<size_t>(end - p)});
  const bool valid = step.kind == Utf8Step::Kind::kCharacter;
  return {step.code_point, valid ? static_cast<uint32_t>(step.bytes) : 1, valid};
}

class UnicodeClasses {
 public:
  static const UnicodeClasses& Get();

  uint8_t BitsOf(uint32_t code_point) const {
    return blocks_[(static_cast<size_t>(block_of_[code_point >> 8]) << 8) | (code_point & 0xFF)];
  }

 private:
  UnicodeClasses();

  std::vector<uint16_t> block_of_;  // [0x1100] by code point / 256
  std::vector<uint8_t> blocks_;     // [distinct blocks x 256]
};

}  // namespace longhaul
