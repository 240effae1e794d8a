#include "common/base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace longhaul {
namespace {

using Kind = Utf8Step::Kind;

TEST(Utf8Test, ReadsEveryCodePoint) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    std::string bytes;
    if (c < 0x80) {
      bytes = {static_cast<char>(c)};
    } else if (c < 0x800) {
      bytes = {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))};
    } else if (c < 0x10000) {
      bytes = {static_cast<char>(0xE0 | (c >> 12)), static_cast<char>(0x80 | ((c >> 6) & 0x3F)),
               static_cast<char>(0x80 | (c & 0x3F))};
    } else {
      bytes = {static_cast<char>(0xF0 | (c >> 18)), static_cast<char>(0x80 | ((c >> 12) & 0x3F)),
               static_cast<char>(0x80 | ((c >> 6) & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
    }
    const Utf8Step step = ReadUtf8(bytes + "x");
    if (c >= 0xD800 && c <= 0xDFFF) {
      ASSERT_EQ(step.kind, Kind::kInvalid) << "surrogate " << static_cast<uint32_t>(c);
      continue;
    }
    ASSERT_EQ(step.kind, Kind::kCharacter) << static_cast<uint32_t>(c);
    ASSERT_EQ(step.bytes, bytes.size());
    ASSERT_EQ(static_cast<uint32_t>(step.code_point), static_cast<uint32_t>(c));
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      ASSERT_EQ(ReadUtf8(absl::string_view(bytes).substr(0, cut)).kind, Kind::kIncomplete);
    }
  }
}

TEST(Utf8Test, CountsOneErrorPerMaximalSubpart) {
  EXPECT_EQ(ReadUtf8("\xF0\x9F\x98z").bytes, 3u);
  EXPECT_EQ(ReadUtf8("\xC0\xAF").bytes, 1u) << "overlong";
  EXPECT_EQ(ReadUtf8("\xE0\x80\x80").bytes, 1u) << "overlong";
  EXPECT_EQ(ReadUtf8("\xF4\x90\x80\x80").bytes, 1u) << "above U+10FFFF";
  EXPECT_EQ(CountUtf8("a\xC3é😀\x80"), 5);
  EXPECT_TRUE(IsUtf8("é"));
  EXPECT_FALSE(IsUtf8("\xC3"));
}

}  // namespace
}  // namespace longhaul
