#include "router/api/json_with_ids.h"

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "router/api/json_reader.h"

namespace longhaul {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr int kVocabulary = 200'000;
constexpr int kDepth = 8;

absl::StatusOr<JsonWithIds> Parse(absl::string_view body) {
  return ParseJsonWithIds(body, "ids", kVocabulary, kDepth, {});
}

std::vector<int32_t> IdsOf(absl::string_view body) {
  const absl::StatusOr<JsonWithIds> parsed = Parse(body);
  EXPECT_TRUE(parsed.ok()) << parsed.status() << " of " << body;
  return parsed.ok() ? parsed->ids : std::vector<int32_t>();
}

// With the ids put back it is what the plain parser makes of the text, error for error.
void ExpectAsThePlainParser(const std::string& body) {
  const absl::StatusOr<boost::json::value> plain = ParseJsonObject(body, kDepth, {});
  const absl::StatusOr<JsonWithIds> parsed = Parse(body);
  ASSERT_EQ(parsed.status(), plain.status()) << body;
  if (!parsed.ok()) return;
  boost::json::value whole = parsed->object;
  if (!parsed->ids.empty()) {
    whole.get_object()["ids"] = boost::json::array(parsed->ids.begin(), parsed->ids.end());
  }
  ASSERT_EQ(whole, *plain) << body;
}

TEST(JsonWithIds, TakesPlainIdsOut) {
  const absl::StatusOr<JsonWithIds> parsed =
      Parse(R"({"a":[1,{"ids":[2]}],"ids":[7,0,199999],"b":"]\"}"})");
  ASSERT_TRUE(parsed.ok());
  EXPECT_THAT(parsed->ids, ElementsAre(7, 0, 199'999));
  EXPECT_EQ(boost::json::serialize(parsed->object), R"({"a":[1,{"ids":[2]}],"ids":[],"b":"]\"}"})");
  EXPECT_THAT(IdsOf(" {\t\"ids\" : [ 1 , 22\n,333 ] } "), ElementsAre(1, 22, 333));
  EXPECT_THAT(IdsOf(R"({"ids":[1]})"), ElementsAre(1));
}

TEST(JsonWithIds, ReadsIdsOfEveryLength) {
  std::vector<int32_t> ids;
  for (int64_t id = 1; id < kVocabulary; id = id * 3 / 2 + 1)
    ids.push_back(static_cast<int32_t>(id));
  EXPECT_EQ(IdsOf(absl::StrCat(R"({"ids":[)", absl::StrJoin(ids, ","), "]}")), ids);
  EXPECT_EQ(IdsOf(absl::StrCat(R"({"ids":[)", absl::StrJoin(ids, ", "), "]}")), ids);
  // Any int32, where the vocabulary is not known.
  const auto large = ParseJsonWithIds(R"({"ids":[99999999]})", "ids", 0, kDepth, {});
  EXPECT_THAT(large->ids, ElementsAre(99'999'999));
}

TEST(JsonWithIds, LeavesWhatIsNotPlain) {
  for (const char* value :
       {"[]", "[1,2,200000]", "[1,-2]", "[1.5]", "[3.0]", "[1e2]", "[\"1\"]", "[1,[2]]", "[null]",
        "\"1,2\"", "null", "12", "[123456789]", "[99999999999999999999]"}) {
    const std::string body = absl::StrCat(R"({"ids":)", value, R"(,"b":[1]})");
    EXPECT_THAT(IdsOf(body), IsEmpty()) << body;
    ExpectAsThePlainParser(body);
  }
}

TEST(JsonWithIds, OfTwoFieldsTheLastCounts) {
  for (const char* body :
       {R"({"ids":[1],"ids":[2]})", R"({"ids":[1],"ids":null})", R"({"ids":"x","ids":[2]})",
        R"({"ids":[1],"\u0069ds":null})", R"({"\u0069ds":"x","ids":[1]})"}) {
    ExpectAsThePlainParser(body);
  }
}

TEST(JsonWithIds, TellsErrorsAsThePlainParserDoes) {
  for (const char* body : {"",
                           "{",
                           "[1]",
                           "{\"ids\"",
                           "{\"ids\":",
                           "{\"ids\":[",
                           "{\"ids\":[1",
                           "{\"ids\":[1,",
                           "{\"ids\":[1]",
                           "{\"ids\":[1],",
                           "{\"ids\":[1],}",
                           "{\"ids\":[1]}}",
                           "{\"ids\":[1]]",
                           "{\"ids\":[01]}",
                           "{\"ids\":[1 2]}",
                           "{\"ids\":[1,]}",
                           "{\"a\":[},\"ids\":[1]}",
                           "{\"a\":\"\\",
                           "{\"a\":\"x",
                           "{\"ids\":[1],\"a\":\"\\",
                           "{\"ids\":[1],\"a\":\x01}",
                           "{\"a\" 1,\"ids\":[1]}"}) {
    ExpectAsThePlainParser(body);
  }
}

TEST(JsonWithIds, DamagedTextsAreReadAsByThePlainParser) {
  const std::string whole =
      R"({"a":"\"x\\","ids":[1, 23,456],"b":{"ids":[4],"c":[true,null]},"d":-1.5e3})";
  const std::string letters = "\"\\[]{},:0189 -.eux";
  std::mt19937 random(1);
  for (int i = 0; i < 200'000; ++i) {
    std::string body = whole;
    for (uint32_t damage = random() % 3 + 1; damage > 0; --damage) {
      const size_t at = random() % body.size();
      const char letter = letters[random() % letters.size()];
      switch (random() % 3) {
        case 0:
          body[at] = letter;
          break;
        case 1:
          body.insert(at, 1, letter);
          break;
        case 2:
          body.erase(at, 1 + random() % 3);
          break;
      }
    }
    ExpectAsThePlainParser(body);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace longhaul
