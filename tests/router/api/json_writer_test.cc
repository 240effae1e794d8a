#include "router/api/json_writer.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>

namespace longhaul {
namespace {

std::string Written(absl::string_view bytes) {
  JsonWriter out;
  out.String(bytes);
  return out.Take();
}

TEST(JsonWriterTest, EscapesAndKeepsUnicode) {
  EXPECT_EQ(Written("a\"\\\n\x01é😀"), "\"a\\\"\\\\\\n\\u0001é😀\"");
}

TEST(JsonWriterTest, ReplacesWhatIsNotUtf8) {
  const std::string replacement = "\xEF\xBF\xBD";
  EXPECT_EQ(Written("\xC3"), "\"" + replacement + "\"");
  EXPECT_EQ(Written("a\xF0\x9F\x98z"), "\"a" + replacement + "z\"");
  EXPECT_EQ(Written("\xED\xA0\x80").size(), 2 + 9u) << "a surrogate is not UTF-8";
}

TEST(JsonWriterTest, EveryPairOfBytesGivesValidJson) {
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) {
      const std::string bytes = {static_cast<char>(a), static_cast<char>(b)};
      boost::json::error_code error;
      boost::json::parse(Written(bytes), error);
      ASSERT_FALSE(error) << a << " " << b;
    }
  }
}

TEST(JsonWriterTest, PlacesCommas) {
  JsonWriter out;
  out.BeginObject().Key("a").BeginArray().Int(1).Int(-2).EndArray();
  out.Key("b").BeginObject().EndObject().Key("c").Null().Key("d").String(",{[:");
  out.Key("e").Bool(true).Key("f").Float(0.1f).EndObject();
  EXPECT_EQ(out.Take(), R"({"a":[1,-2],"b":{},"c":null,"d":",{[:","e":true,"f":0.1})");
}

}  // namespace
}  // namespace longhaul
