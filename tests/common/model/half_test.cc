#include "common/model/half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace longhaul {
namespace {

TEST(HalfTest, EveryF16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = F32FromF16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(F32FromF16(F16FromF32(value)))) << bits;
    } else {
      ASSERT_EQ(F16FromF32(value), bits) << value;
    }
  }
}

TEST(HalfTest, F16RoundsHalfwayValuesToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = F32FromF16(static_cast<uint16_t>(bits));
    const float high = F32FromF16(static_cast<uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;
    ASSERT_EQ(F16FromF32(middle), bits + (bits & 1)) << low;
    ASSERT_EQ(F16FromF32(std::nextafter(middle, high)), bits + 1) << low;
    ASSERT_EQ(F16FromF32(-std::nextafter(middle, low)), bits | 0x8000u) << low;
  }
  EXPECT_EQ(F16FromF32(65519.0f), 0x7bff);
  EXPECT_EQ(F16FromF32(65520.0f), 0x7c00);
  EXPECT_EQ(F16FromF32(1e30f), 0x7c00);
}

TEST(HalfTest, BF16RoundsToNearestEven) {
  EXPECT_EQ(BF16FromF32(1.0f), 0x3f80);
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3f808000u)), 0x3f80);
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(BF16FromF32(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(BF16FromF32(-std::numeric_limits<float>::infinity()), 0xff80);
  // A NaN whose payload lies in the bits that are cut off must not become infinity.
  EXPECT_TRUE(std::isnan(F32FromBF16(BF16FromF32(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace
}  // namespace longhaul
