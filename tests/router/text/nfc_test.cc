#include "router/text/nfc.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <random>
#include <string>

namespace longhaul {
namespace {

std::string Nfc(const std::string& text) {
  std::string storage;
  return std::string(NormalizeNfc(text, &storage));
}

TEST(NfcTest, ComposesWhatIsDecomposed) {
  EXPECT_EQ(Nfc("e\u0301a"), "\u00e9a");
  EXPECT_EQ(Nfc("\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(Nfc("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(Nfc("\u212b"), "\u00c5");
  EXPECT_EQ(Nfc("\u0958"), "\u0915\u093c");
}

TEST(NfcTest, ReturnsTheTextItselfWhenNothingChanges) {
  for (const std::string text : {"", "plain", "caf\u00e9 \u4e2d\u6587 \ud55c\uae00", "\xff\xcc"}) {
    std::string storage;
    EXPECT_EQ(NormalizeNfc(text, &storage).data(), absl::string_view(text).data()) << text;
  }
}

TEST(NfcTest, LeavesInvalidBytesInPlace) {
  EXPECT_EQ(Nfc("e\xff\u0301"), "e\xff\u0301");
  EXPECT_EQ(Nfc("\xcc e\u0301\xed\xa0\x80"), "\xcc \u00e9\xed\xa0\x80");
}

TEST(NfcTest, LeavesYoungMarksWhereTheyAre) {
  // U+1ACE (Unicode 14) has class 230 and would go behind U+0323.
  EXPECT_EQ(Nfc("a\u1ace\u0323"), "a\u1ace\u0323");
  // Not a final consonant of Hangul, though next to them.
  EXPECT_EQ(Nfc("\u1103\u1166\u11a7"), "\ub370\u11a7");
}

TEST(NfcTest, AgreesWithUtf8procOnMarksOfAllKinds) {
  static const uint32_t kFirsts[] = {'a',    'E',    0xE9,  0x1E69, 0x915,  0x1100,
                                     0xAC00, 0xAC01, 0x3B1, 0x1F00, 0x30AB, 0x4E2D};
  std::mt19937_64 random(9);
  for (int i = 0; i < 20000; ++i) {
    std::u32string text;
    const int count = static_cast<int>(random() % 9);
    for (int k = 0; k < count; ++k) {
      switch (random() % 4) {
        case 0:
          text += kFirsts[random() % std::size(kFirsts)];
          break;
        case 1:
          text += static_cast<char32_t>(0x1161 + random() % 21);
          break;
        case 2:
          text += static_cast<char32_t>(0x11A8 + random() % 27);
          break;
        default:
          text += static_cast<char32_t>(0x300 + random() % 0x70);
      }
    }
    std::string utf8;
    for (char32_t c : text) {
      utf8proc_uint8_t bytes[4];
      utf8.append(reinterpret_cast<char*>(bytes), static_cast<size_t>(utf8proc_encode_char(
                                                      static_cast<utf8proc_int32_t>(c), bytes)));
    }
    utf8proc_uint8_t* const expected =
        utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(utf8.c_str()));
    ASSERT_EQ(Nfc(utf8), reinterpret_cast<const char*>(expected));
    std::free(expected);
  }
}

}  // namespace
}  // namespace longhaul
