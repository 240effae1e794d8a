#include "common/http/request_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace longhaul {
namespace {

using ::testing::HasSubstr;
using State = RequestParser::State;

struct Outcome {
  State state;
  int status = 0;
  std::string message;
  int64_t consumed = 0;
  bool keep_alive = false;
  bool expects_continue = false;
  HttpRequest request;
};

Outcome Parse(absl::string_view bytes, RequestLimits limits = {}, int64_t piece_bytes = 1 << 20) {
  RequestParser parser(limits);
  Outcome outcome;
  while (!bytes.empty()) {
    const absl::string_view piece = bytes.substr(0, piece_bytes);
    const int64_t consumed = parser.Feed(piece);
    outcome.consumed += consumed;
    bytes.remove_prefix(consumed);
    if (consumed < static_cast<int64_t>(piece.size())) break;
  }
  outcome.state = parser.state();
  outcome.status = parser.refusal().status;
  outcome.message = parser.refusal().message;
  outcome.keep_alive = parser.keep_alive();
  outcome.expects_continue = parser.expects_continue();
  if (outcome.state == State::kDone) outcome.request = parser.TakeRequest();
  return outcome;
}

struct Attack {
  std::string name;
  std::string bytes;
  int status;
};

// Everything here must be refused, whatever the sizes of the pieces it arrives in.
std::vector<Attack> Attacks() {
  const std::string get = "GET / HTTP/1.1\r\n";
  const std::string host = "Host: x\r\n";
  const std::string post = "POST / HTTP/1.1\r\nHost: x\r\n";
  const std::string chunked = post + "Transfer-Encoding: chunked\r\n\r\n";
  using std::string_literals::operator""s;
  return {
      {"two equal lengths", post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
      {"two unequal lengths", post + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
      {"list of lengths", post + "Content-Length: 3, 3\r\n\r\nabc", 400},
      {"signed length", post + "Content-Length: +3\r\n\r\nabc", 400},
      {"negative length", post + "Content-Length: -3\r\n\r\nabc", 400},
      {"hexadecimal length", post + "Content-Length: 0x3\r\n\r\nabc", 400},
      {"empty length", post + "Content-Length:\r\n\r\n", 400},
      {"length with a space", post + "Content-Length: 1 3\r\n\r\nabc", 400},
      {"fractional length", post + "Content-Length: 3.0\r\n\r\nabc", 400},
      {"length beyond 64 bits", post + "Content-Length: 99999999999999999999999\r\n\r\n", 413},
      {"length that wraps to 3", post + "Content-Length: 18446744073709551619\r\n\r\nabc", 413},
      {"length and coding",
       post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"coding and length",
       post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
      {"coding twice",
       post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"chunked twice", post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400},
      {"chunked not last", post + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400},
      {"coding unknown", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
      {"coding identity", post + "Transfer-Encoding: identity\r\n\r\n", 400},
      {"coding with vertical tab",
       post + "Transfer-Encoding: \x0b"
              "chunked\r\n\r\n0\r\n\r\n",
       400},
      {"coding quoted", post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400},
      {"coding before chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {"coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"bare LF after the request line", "GET / HTTP/1.1\nHost: x\r\n\r\n", 400},
      {"bare LF after a header", get + "Host: x\n\r\n", 400},
      {"bare LF twice", get + "Host: x\n\n", 400},
      {"bare CR in a value", get + "Host: x\r\nA: b\rc\r\n\r\n", 400},
      {"bare CR ends a line", get + "Host: x\rA: b\r\n\r\n", 400},
      {"CR CR LF", get + "Host: x\r\r\n\r\n", 400},
      {"NUL in a value", get + host + "A: b\0c\r\n\r\n"s, 400},
      {"NUL in a name", get + host + "A\0: b\r\n\r\n"s, 400},
      {"DEL in a value", get + host + "A: b\x7f\r\n\r\n", 400},
      {"obs-fold", get + host + "A: b\r\n c\r\n\r\n", 400},
      {"obs-fold with a tab", get + host + "A: b\r\n\tc\r\n\r\n", 400},
      {"fold of the first field", get + " Host: x\r\n\r\n", 400},
      {"space before the colon", get + "Host : x\r\n\r\n", 400},
      {"tab before the colon", get + host + "A\t: b\r\n\r\n", 400},
      {"no colon", get + host + "Ab\r\n\r\n", 400},
      {"empty name", get + host + ": b\r\n\r\n", 400},
      {"name with a space", get + host + "A b: c\r\n\r\n", 400},
      {"name outside ASCII", get + host + "\xc3\xa4: c\r\n\r\n", 400},
      {"name with a parenthesis", get + host + "A(b): c\r\n\r\n", 400},
      {"no Host", get + "\r\n", 400},
      {"two Hosts", get + host + host + "\r\n", 400},
      {"two Hosts in 1.0", "GET / HTTP/1.0\r\n" + host + host + "\r\n", 400},
      {"Host with a path", get + "Host: x/y\r\n\r\n", 400},
      {"Host with user info", get + "Host: a@x\r\n\r\n", 400},
      {"Host with a space", get + "Host: x y\r\n\r\n", 400},
      {"control character in the target", "GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"NUL in the target", "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n"s, 400},
      {"tab in the target", "GET /a\tb HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"target outside ASCII", "GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"fragment", "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"target without a slash", "GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"star for GET", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"authority form", "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"absolute form without a host", "GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"two spaces", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"trailing space", "GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400},
      {"tab as a separator", "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"leading space", " GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"no version", "GET /\r\nHost: x\r\n\r\n", 400},
      {"lower-case version", "GET / http/1.1\r\nHost: x\r\n\r\n", 400},
      {"short version", "GET / HTTP/1\r\nHost: x\r\n\r\n", 400},
      {"long version", "GET / HTTP/1.10\r\nHost: x\r\n\r\n", 400},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"HTTP/0.9", "GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505},
      {"method not a token", "G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"s, 400},
      {"two empty lines first", "\r\n\r\n" + get + host + "\r\n", 400},
      {"unknown expectation", post + "Expect: 200-ok\r\nContent-Length: 1\r\n\r\na", 417},
      {"chunk size empty", chunked + "\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size signed", chunked + "+3\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size negative", chunked + "-3\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size with 0x", chunked + "0x3\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size after a space", chunked + " 3\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size before a space", chunked + "3 \r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size before a tab", chunked + "3\t;a\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size with underscore", chunked + "1_0\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size wraps 64 bits", chunked + "10000000000000003\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size at 64 bits", chunked + "ffffffffffffffff\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size with many zeros", chunked + "00000000000000003\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size bare LF", chunked + "3\nabc\r\n0\r\n\r\n", 400},
      {"chunk size bare CR", chunked + "3\rabc\r\n0\r\n\r\n", 400},
      {"chunk data bare LF", chunked + "3\r\nabc\n0\r\n\r\n", 400},
      {"chunk data too long", chunked + "3\r\nabcd\r\n0\r\n\r\n", 400},
      {"chunk extension bare LF", chunked + "3;a\nabc\r\n0\r\n\r\n", 400},
      {"chunk extension control character", chunked + "3;a\x01\r\nabc\r\n0\r\n\r\n", 400},
      {"last chunk bare LF", chunked + "0\n\r\n", 400},
      {"trailer bare LF", chunked + "0\r\nA: b\n\r\n", 400},
      {"trailer folded", chunked + "0\r\nA: b\r\n c\r\n\r\n", 400},
      {"trailer without a colon", chunked + "0\r\nGET / HTTP/1.1\r\n\r\n", 400},
      {"chunk extensions huge", chunked + "3;" + std::string(5000, 'a') + "\r\nabc\r\n", 400},
      {"target huge", "GET /" + std::string(40000, 'a'), 414},
      {"headers huge", get + "A: " + std::string(40000, 'a'), 431},
      {"trailers huge", chunked + "0\r\nA: " + std::string(40000, 'a'), 431},
  };
}

TEST(RequestParserTest, RefusesWhatIsAmbiguous) {
  for (const Attack& attack : Attacks()) {
    for (const int64_t piece_bytes : {int64_t{1}, int64_t{7}, int64_t{1} << 20}) {
      SCOPED_TRACE(absl::StrCat(attack.name, " in pieces of ", piece_bytes));
      const Outcome outcome = Parse(attack.bytes, {}, piece_bytes);
      EXPECT_EQ(outcome.state, State::kRefused);
      EXPECT_EQ(outcome.status, attack.status) << outcome.message;
      EXPECT_FALSE(outcome.message.empty());
      // Messages go into JSON and logs: whatever was sent, they are printable ASCII.
      for (const char c : outcome.message) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
    }
  }
}

TEST(RequestParserTest, ReadsARequestWithALength) {
  const std::string bytes =
      "POST /v1/completions?a=b?c HTTP/1.1\r\nHost: x:80\r\nContent-Length: 5\r\n"
      "X-Empty:\r\nX-Padded: \t v w \t\r\n\r\nhello";
  for (int64_t piece_bytes = 1; piece_bytes <= static_cast<int64_t>(bytes.size()); ++piece_bytes) {
    const Outcome outcome = Parse(bytes, {}, piece_bytes);
    ASSERT_EQ(outcome.state, State::kDone) << outcome.message;
    EXPECT_EQ(outcome.request.method, "POST");
    EXPECT_EQ(outcome.request.path, "/v1/completions");
    EXPECT_EQ(outcome.request.query, "a=b?c");
    EXPECT_EQ(outcome.request.headers.Get("x-padded"), "v w");
    EXPECT_TRUE(outcome.request.headers.Has("X-EMPTY"));
    EXPECT_EQ(outcome.request.headers.Get("X-Empty"), "");
    EXPECT_FALSE(outcome.request.headers.Has("X-None"));
    EXPECT_EQ(outcome.request.body, "hello");
    EXPECT_TRUE(outcome.keep_alive);
  }
}

TEST(RequestParserTest, ReadsAChunkedRequest) {
  const std::string bytes =
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
      "3\r\nabc\r\n00A;name=\"v;1\"\r\n0123456789\r\n0\r\nTrailer: dropped\r\n\r\n";
  for (int64_t piece_bytes = 1; piece_bytes <= static_cast<int64_t>(bytes.size()); ++piece_bytes) {
    const Outcome outcome = Parse(bytes, {}, piece_bytes);
    ASSERT_EQ(outcome.state, State::kDone) << outcome.message;
    EXPECT_EQ(outcome.request.body, "abc0123456789");
    EXPECT_FALSE(outcome.request.headers.Has("Trailer"));
  }
}

TEST(RequestParserTest, LeavesTheNextRequestAlone) {
  const std::string first = "POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab";
  const std::string second = "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n";
  RequestParser parser({});
  ASSERT_EQ(parser.Feed(first + second), static_cast<int64_t>(first.size()));
  EXPECT_EQ(parser.TakeRequest().body, "ab");
  EXPECT_TRUE(parser.idle());
  ASSERT_EQ(parser.Feed(second), static_cast<int64_t>(second.size()));
  ASSERT_EQ(parser.state(), State::kDone);
  const HttpRequest request = parser.TakeRequest();
  EXPECT_EQ(request.path, "/2");
  EXPECT_EQ(request.body, "");
  EXPECT_EQ(request.headers.size(), 1);
}

TEST(RequestParserTest, AcceptsTheLegalOddities) {
  const struct {
    std::string bytes;
    std::string path;
    bool keep_alive;
  } kCases[] = {
      {"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "/", true},
      {"GET http://x/a?b HTTP/1.1\r\nHost: x\r\n\r\n", "/a", true},
      {"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", "/", true},
      {"GET HTTP://x?b HTTP/1.1\r\nHost: x\r\n\r\n", "/", true},
      {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "*", true},
      {"GET / HTTP/1.1\r\nHost:\r\n\r\n", "/", true},
      {"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "/", true},
      {"GET / HTTP/1.0\r\n\r\n", "/", false},
      {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "/", true},
      {"GET / HTTP/1.1\r\nHost: x\r\nConnection: TE , Close\r\n\r\n", "/", false},
      {"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nConnection: x\r\n\r\n", "/", false},
      {"GET / HTTP/1.3\r\nHost: x\r\n\r\n", "/", true},
      {"GET /%7e/%zz HTTP/1.1\r\nHost: x\r\n\r\n", "/%7e/%zz", true},
      {"GET / HTTP/1.1\r\nHost: x\r\nA: \xc3\xa4\r\n\r\n", "/", true},
      {"M-SEARCH / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "/", true},
  };
  for (const auto& [bytes, path, keep_alive] : kCases) {
    SCOPED_TRACE(bytes);
    const Outcome outcome = Parse(bytes);
    ASSERT_EQ(outcome.state, State::kDone) << outcome.message;
    EXPECT_EQ(outcome.request.path, path);
    EXPECT_EQ(outcome.keep_alive, keep_alive);
  }
}

TEST(RequestParserTest, ExpectationIsKnownBeforeTheBody) {
  const Outcome outcome =
      Parse("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n");
  EXPECT_EQ(outcome.state, State::kBody);
  EXPECT_TRUE(outcome.expects_continue);
}

TEST(RequestParserTest, BodyLimitHoldsForBothFramings) {
  RequestLimits limits;
  limits.body_bytes_max = 8;
  const std::string post = "POST / HTTP/1.1\r\nHost: x\r\n";
  EXPECT_EQ(Parse(post + "Content-Length: 8\r\n\r\n01234567", limits).state, State::kDone);
  const Outcome length = Parse(post + "Content-Length: 9\r\n\r\n", limits);
  EXPECT_EQ(length.status, 413);
  EXPECT_THAT(length.message, HasSubstr("9 bytes exceeds the limit of 8"));
  const std::string chunked = post + "Transfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(Parse(chunked + "4\r\n0123\r\n4\r\n4567\r\n0\r\n\r\n", limits).state, State::kDone);
  EXPECT_EQ(Parse(chunked + "4\r\n0123\r\n5\r\n", limits).status, 413);
  EXPECT_EQ(Parse(chunked + "fffffffffffffff\r\n", limits).status, 413);
}

TEST(RequestParserTest, HeaderLimitsAreExact) {
  const std::string head = "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n";
  RequestLimits limits;
  limits.header_bytes_max = static_cast<int64_t>(head.size());
  EXPECT_EQ(Parse(head, limits).state, State::kDone);
  limits.header_bytes_max -= 1;
  EXPECT_EQ(Parse(head, limits).status, 431);
  limits = {};
  limits.headers_max = 2;
  EXPECT_EQ(Parse(head, limits).state, State::kDone);
  limits.headers_max = 1;
  EXPECT_EQ(Parse(head, limits).status, 431);
}

}  // namespace
}  // namespace longhaul
