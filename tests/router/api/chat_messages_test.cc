#include "router/api/chat_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "router/api/error.h"

namespace longhaul {
namespace {

namespace json = boost::json;

std::string Read(const std::string& messages) {
  absl::StatusOr<json::array> read = ReadChatMessages(json::parse(messages), 64);
  return read.ok() ? json::serialize(*read) : std::string(read.status().message());
}

std::string ParamOf(const std::string& messages) {
  absl::StatusOr<json::array> read = ReadChatMessages(json::parse(messages), 64);
  return read.ok() ? "" : ApiErrorFromStatus(read.status()).param;
}

TEST(ChatMessagesTest, KeepsStringsAndUnknownFields) {
  EXPECT_EQ(Read(R"([{"role":"user","content":"a","name":"b"}])"),
            R"([{"role":"user","content":"a","name":"b"}])");
}

TEST(ChatMessagesTest, JoinsTextPartsAndRenamesDeveloper) {
  EXPECT_EQ(
      Read(
          R"([{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}])"),
      R"([{"role":"system","content":"a\nb"}])");
}

TEST(ChatMessagesTest, ParsesArgumentsOfToolCalls) {
  EXPECT_EQ(Read(R"([{"role":"assistant","content":null,"tool_calls":[
                 {"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"}}]}])"),
            R"([{"role":"assistant","content":null,"tool_calls":[)"
            R"({"id":"1","type":"function","function":{"name":"f","arguments":{"x":1}}}]}])");
}

TEST(ChatMessagesTest, NamesThePathAtFault) {
  EXPECT_EQ(ParamOf("{}"), "messages");
  EXPECT_EQ(ParamOf("[]"), "messages");
  EXPECT_EQ(ParamOf("[1]"), "messages[0]");
  EXPECT_EQ(ParamOf(R"([{"content":"a"}])"), "messages[0].role");
  EXPECT_EQ(ParamOf(R"([{"role":"user","content":"a"},{"role":"x","content":"a"}])"),
            "messages[1].role");
  EXPECT_EQ(ParamOf(R"([{"role":"user"}])"), "messages[0].content");
  EXPECT_EQ(ParamOf(R"([{"role":"user","content":3}])"), "messages[0].content");
  EXPECT_EQ(ParamOf(R"([{"role":"user","content":["a"]}])"), "messages[0].content[0]");
  EXPECT_EQ(ParamOf(R"([{"role":"user","content":[{"type":"text"}]}])"),
            "messages[0].content[0].text");
  EXPECT_EQ(ParamOf(R"([{"role":"assistant","tool_calls":[{}]}])"),
            "messages[0].tool_calls[0].function");
  EXPECT_EQ(
      ParamOf(R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{"}}]}])"),
      "messages[0].tool_calls[0].function.arguments");
}

TEST(ChatMessagesTest, RefusesImagesAsUnsupported) {
  const std::string messages =
      R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}])";
  EXPECT_EQ(ParamOf(messages), "messages[0].content[0].type");
  EXPECT_THAT(Read(messages), ::testing::HasSubstr("'image_url'"));
}

}  // namespace
}  // namespace longhaul
