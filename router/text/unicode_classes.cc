#include "router/text/unicode_classes.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <map>

namespace longhaul {
namespace {

constexpr uint32_t kCodePoints = 0x110000;
constexpr uint32_t kBlockChars = 256;

struct Range {
  uint32_t first;
  uint32_t last;
};

// Assigned after Unicode 15.0, from UnicodeData.txt of 15.1 and 16.0.
constexpr Range kNewLetters[] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3},
    {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389},
    {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
    {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA},
    {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
    {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
constexpr Range kNewNumbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9},
                                 {0x16130, 0x16139}, {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9},
                                 {0x1E5F1, 0x1E5FA}};
// Numbers of Unicode 17 that the "Digits" splitter knows and the regexes' \p{N} does not.
constexpr Range kNewDigitsOnly[] = {{0x11DE0, 0x11DE9}, {0x16FF4, 0x16FF6}};
constexpr Range kWhiteSpace[] = {
    {0x9, 0xD},       {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
    {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};

uint8_t BitsOfCategory(utf8proc_category_t category) {
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetterBit;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return kNumberBit | kDigitBit;
    default:
      return kOtherBit;
  }
}

}  // namespace

const UnicodeClasses& UnicodeClasses::Get() {
  static const UnicodeClasses* const classes = new UnicodeClasses();
  return *classes;
}

UnicodeClasses::UnicodeClasses() {
  std::vector<uint8_t> bits(kCodePoints);
  for (uint32_t c = 0; c < kCodePoints; ++c) {
    bits[c] = BitsOfCategory(utf8proc_category(static_cast<utf8proc_int32_t>(c)));
  }
  const auto set = [&bits](const auto& ranges, uint8_t value) {
    for (const Range& range : ranges) {
      for (uint32_t c = range.first; c <= range.last; ++c) bits[c] = value;
    }
  };
  set(kNewLetters, kLetterBit);
  set(kNewNumbers, kNumberBit | kDigitBit);
  set(kNewDigitsOnly, kOtherBit | kDigitBit);
  set(kWhiteSpace, kSpaceBit);
  bits['\r'] |= kNewlineBit;
  bits['\n'] |= kNewlineBit;

  std::map<std::array<uint8_t, kBlockChars>, uint16_t> seen;
  for (uint32_t first = 0; first < kCodePoints; first += kBlockChars) {
    std::array<uint8_t, kBlockChars> block;
    std::copy_n(bits.begin() + first, kBlockChars, block.begin());
    const auto [it, is_new] = seen.emplace(block, static_cast<uint16_t>(seen.size()));
    if (is_new) blocks_.insert(blocks_.end(), block.begin(), block.end());
    block_of_.push_back(it->second);
  }
}

}  // namespace longhaul
