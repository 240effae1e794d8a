#include "kv_transfer/lane/lane_message.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace longhaul {
namespace {

using Kind = LaneMessage::Kind;

TEST(LaneMessageTest, WhatIsWrittenIsReadHoweverTheStreamIsCut) {
  std::mt19937_64 random(20261124);
  std::vector<LaneMessage> written;
  std::string stream;
  for (int i = 0; i < 200; ++i) {
    LaneMessage message{static_cast<Kind>(1 + random() % 7), random(), {}};
    for (uint64_t n = random() % 20; n > 0; --n) message.sizes.push_back(random() >> 1);
    message.AppendTo(stream);
    written.push_back(std::move(message));
  }
  std::string come;
  size_t read = 0;
  for (size_t at = 0; at < stream.size();) {
    const size_t bytes = std::min<size_t>(1 + random() % 50, stream.size() - at);
    come.append(stream, at, bytes);
    at += bytes;
    size_t consumed = 0;
    bool malformed = false;
    while (auto message = ParseLaneMessage(come, &consumed, &malformed)) {
      ASSERT_LT(read, written.size());
      EXPECT_EQ(message->kind, written[read].kind);
      EXPECT_EQ(message->tag, written[read].tag);
      EXPECT_EQ(message->sizes, written[read].sizes);
      ++read;
    }
    ASSERT_FALSE(malformed);
    come.erase(0, consumed);
  }
  EXPECT_EQ(read, written.size());
  EXPECT_TRUE(come.empty());
}

TEST(LaneMessageTest, WhatIsNoMessageIsRefusedBeforeItsBytesCome) {
  const auto frame = [](uint32_t length, uint8_t kind, int64_t size) {
    std::string stream(reinterpret_cast<const char*>(&length), sizeof length);
    stream.push_back(static_cast<char>(kind));
    stream.append(8, '\7');
    stream.append(reinterpret_cast<const char*>(&size), sizeof size);
    return stream;
  };
  for (const auto& [what, stream, malformed] : {
           std::tuple{"good", frame(17, 2, 5), false},
           std::tuple{"no kind", frame(17, 0, 5), true},
           std::tuple{"unknown kind", frame(17, 8, 5), true},
           std::tuple{"negative size", frame(17, 2, -1), true},
           std::tuple{"shorter than a head", frame(8, 2, 5), true},
           std::tuple{"half a size", frame(13, 2, 5), true},
           std::tuple{"huge", std::string("\xff\xff\xff\xff", 4), true},
           std::tuple{"not whole yet", frame(25, 2, 5), false},
       }) {
    size_t consumed = 0;
    bool is_malformed = false;
    const auto message = ParseLaneMessage(stream, &consumed, &is_malformed);
    EXPECT_EQ(is_malformed, malformed) << what;
    EXPECT_EQ(message.has_value(), std::string(what) == "good") << what;
    EXPECT_EQ(consumed, message.has_value() ? stream.size() : 0) << what;
  }
}

}  // namespace
}  // namespace longhaul
