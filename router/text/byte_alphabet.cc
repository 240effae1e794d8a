#include "router/text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "router/text/unicode_classes.h"

namespace longhaul {
namespace {

constexpr uint32_t kMovedFirst = 0x100;
constexpr int kMovedCount = 68;  // control characters, space, delete, U+0080..U+00A0, soft hyphen

constexpr bool StandsForItself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<uint8_t, kMovedCount> MakeMoved() {
  std::array<uint8_t, kMovedCount> moved{};
  int count = 0;
  for (int byte = 0; byte < 256; ++byte) {
    if (!StandsForItself(byte)) moved[count++] = static_cast<uint8_t>(byte);
  }
  return moved;
}
constexpr std::array<uint8_t, kMovedCount> kMoved = MakeMoved();

}  // namespace

std::optional<std::string> BytesOfAlphabet(absl::string_view text) {
  std::string bytes;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p != end;) {
    const DecodedChar c = DecodeUtf8(p, end);
    if (c.code_point < kMovedFirst && StandsForItself(static_cast<int>(c.code_point))) {
      bytes.push_back(static_cast<char>(c.code_point));
    } else if (c.code_point >= kMovedFirst && c.code_point < kMovedFirst + kMovedCount) {
      bytes.push_back(static_cast<char>(kMoved[c.code_point - kMovedFirst]));
    } else {
      return std::nullopt;
    }
    p += c.bytes;
  }
  return bytes;
}

}  // namespace longhaul
