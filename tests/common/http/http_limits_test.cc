// What the server refuses and whom it drops.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/http/http_server.h"
#include "tests/common/http/raw_client.h"
#include "tests/common/http/test_server.h"

namespace longhaul {
namespace {

using ::testing::HasSubstr;
using ExchangePtr = std::shared_ptr<HttpExchange>;

constexpr char kGet[] = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

void Ok(HttpRequest, ExchangePtr exchange) { exchange->Respond(200, {}, "ok"); }

TEST(HttpLimitsTest, RefusalsAreOpenAiErrorsAndClose) {
  TestServer server(Ok);
  const std::string post = "POST / HTTP/1.1\r\nHost: x\r\n";
  const struct {
    std::string bytes;
    int status;
    std::string code;
  } kCases[] = {
      {post + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400, "invalid_http"},
      {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "invalid_http"},
      {"GET / HTTP/1.1\r\n\r\n", 400, "invalid_http"},
      {"GET / HTTP/2.0\r\n\r\n", 505, "http_version_not_supported"},
      {post + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "unsupported_transfer_encoding"},
      {post + "Content-Length: 99999999999\r\n\r\n", 413, "body_too_large"},
      {"GET / HTTP/1.1\r\nA: " + std::string(1 << 20, 'a'), 431, "headers_too_large"},
      {"GET /" + std::string(1 << 20, 'a'), 414, "uri_too_long"},
      {post + "Expect: x\r\n\r\n", 417, "expectation_failed"},
  };
  for (const auto& [bytes, status, code] : kCases) {
    SCOPED_TRACE(absl::StrCat(code, ": ", bytes.substr(0, 80)));
    RawClient client(server->port());
    // The request after the refused one must never be looked at.
    client.Send(bytes + std::string("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"));
    const RawResponse response = client.ReadResponse();
    EXPECT_EQ(response.status, status);
    EXPECT_TRUE(response.whole);
    EXPECT_EQ(response.Header("connection"), "close");
    EXPECT_EQ(response.Header("content-type"), "application/json");
    EXPECT_THAT(response.body, HasSubstr(absl::StrCat("\"code\":\"", code, "\"")));
    EXPECT_THAT(response.body, HasSubstr("{\"error\":{\"message\":\""));
    EXPECT_TRUE(client.AtEnd());
  }
  EXPECT_EQ(server->stats().requests_total, 0);
  EXPECT_EQ(server->stats().requests_refused_total, std::size(kCases));
}

TEST(HttpLimitsTest, RefusedHeadHasNoBody) {
  TestServer server(Ok);
  RawClient client(server->port());
  client.Send("HEAD / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(client.ReadResponse(/*head_request=*/true).status, 400);
  EXPECT_TRUE(client.AtEnd());
}

TEST(HttpLimitsTest, AnOversizedBodyGetsItsAnswer) {
  // The client is still sending when the answer comes; a reset must not destroy it.
  HttpServerOptions options;
  options.limits.body_bytes_max = 1000;
  TestServer server(Ok, options);
  RawClient client(server->port());
  client.Send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 100; ++i) client.Send("200\r\n" + std::string(512, 'a') + "\r\n");
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.status, 413);
  EXPECT_THAT(response.body, HasSubstr("limit of 1000 bytes"));
}

TEST(HttpLimitsTest, BodiesOfAllClientsHaveALimitTogether) {
  HttpServerOptions options;
  options.bodies_bytes_max = 1000;
  TestServer server(Ok, options);
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n";
  {
    RawClient holder(server->port());
    holder.Send(
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 900\r\n\r\n");
    holder.ReadUntil("\r\n\r\n");
    RawClient other(server->port());
    // Whichever client's bytes come second is refused; the first is served in the end.
    holder.Send(std::string(800, 'a'));
    other.Send(head + std::string(800, 'a'));
    other.Send(std::string(100, 'a'));
    holder.Send(std::string(100, 'a'));
    const int first = holder.ReadResponse().status;
    const int second = other.ReadResponse().status;
    EXPECT_EQ(std::min(first, second), 200);
    EXPECT_THAT(std::max(first, second), testing::AnyOf(200, 503));
  }
  // What they held was given back: bodies go through again, many times over.
  RawClient client(server->port());
  for (int i = 0; i < 5; ++i) {
    client.Send(head);
    client.Send(std::string(900, 'a'));
    EXPECT_EQ(client.ReadResponse().status, 200);
  }
  // A single body above the limit is refused for sure.
  options.bodies_bytes_max = 100;
  TestServer small(Ok, options);
  RawClient big(small->port());
  big.Send(head + std::string(800, 'a'));
  const RawResponse response = big.ReadResponse();
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, HasSubstr("exceed 100 bytes in all"));
}

TEST(HttpLimitsTest, SlowRequestsTimeOut) {
  HttpServerOptions options;
  options.header_timeout_us = 1000;
  options.body_timeout_us = 1000;
  TestServer server(Ok, options);
  for (const char* part :
       {"GET / HT", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"}) {
    RawClient client(server->port());
    client.Send(part);
    const RawResponse response = client.ReadResponse();
    EXPECT_EQ(response.status, 408);
    EXPECT_TRUE(client.AtEnd());
  }
}

TEST(HttpLimitsTest, IdleConnectionsCloseSilently) {
  HttpServerOptions options;
  options.idle_timeout_us = 1000;
  TestServer server(Ok, options);
  RawClient fresh(server->port());
  EXPECT_EQ(fresh.ReadToEnd(), "");
  RawClient used(server->port());
  used.Send(kGet);
  // The answer may race with the close of a connection that sent nothing for a millisecond.
  used.ReadToEnd();
  EXPECT_EQ(server->stats().requests_refused_total, 0);
}

TEST(HttpLimitsTest, AnswersThatTakeLongAreNotIdle) {
  HttpServerOptions options;
  options.idle_timeout_us = 100'000;
  options.write_timeout_us = 1000;
  Handover<ExchangePtr> taken;
  TestServer server([&](HttpRequest, ExchangePtr exchange) { taken.Give(std::move(exchange)); },
                    options);
  RawClient busy(server->port());
  busy.Send(kGet);
  const ExchangePtr exchange = taken.Take();
  exchange->StartStream(200, {});
  exchange->Write("first");
  busy.ReadUntil("first");
  // Connections that come and idle out show that more than the timeouts has passed.
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(RawClient(server->port()).AtEnd());
  EXPECT_TRUE(exchange->Write("second"));
  exchange->End();
  EXPECT_THAT(busy.ReadUntil("0\r\n\r\n"), HasSubstr("second"));
}

TEST(HttpLimitsTest, ConnectionsBeyondTheMaximumGet503) {
  HttpServerOptions options;
  options.connections_max = 2;
  TestServer server(Ok, options);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 2; ++i) {
    clients.push_back(std::make_unique<RawClient>(server->port()));
    clients.back()->Send(kGet);
    EXPECT_EQ(clients.back()->ReadResponse().status, 200);
  }
  {
    RawClient third(server->port());
    third.Send(kGet);
    const RawResponse response = third.ReadResponse();
    EXPECT_EQ(response.status, 503);
    EXPECT_EQ(response.Header("retry-after"), "1");
    EXPECT_THAT(response.body, HasSubstr("maximum of 2 connections"));
  }
  EXPECT_EQ(server->stats().connections_refused_total, 1);
  clients[0]->Send(kGet);  // the others are not disturbed
  EXPECT_EQ(clients[0]->ReadResponse().status, 200);
}

// Writes until the stream refuses; returns how much it took.
int64_t WriteUntilDropped(HttpExchange& exchange) {
  int64_t written = 0;
  const std::string piece(16 << 10, 'a');
  while (exchange.Write(piece)) written += static_cast<int64_t>(piece.size());
  return written;
}

TEST(HttpLimitsTest, SlowReadersAreDroppedAndDisturbNobody) {
  HttpServerOptions options;
  options.threads = 1;  // both clients on the same edge
  options.stream_queue_bytes_max = 64 << 10;
  Handover<ExchangePtr> taken;
  Handover<bool> gone;
  TestServer server(
      [&](HttpRequest request, ExchangePtr exchange) {
        if (request.path == "/fast") return Ok(std::move(request), std::move(exchange));
        exchange->OnClientGone([&] { gone.Give(true); });
        taken.Give(std::move(exchange));
      },
      options);
  RawClient slow(server->port(), /*receive_bytes=*/4096);
  slow.Send(kGet);
  const ExchangePtr exchange = taken.Take();
  exchange->StartStream(200, {});
  EXPECT_GT(WriteUntilDropped(*exchange), 0);
  EXPECT_TRUE(gone.Take());
  EXPECT_EQ(exchange->queued_bytes(), 0);
  EXPECT_EQ(server->stats().slow_readers_total, 1);
  RawClient fast(server->port());
  fast.Send("GET /fast HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(fast.ReadResponse().body, "ok");
  EXPECT_FALSE(slow.ReadResponse().whole);
}

TEST(HttpLimitsTest, StalledReadersTimeOut) {
  HttpServerOptions options;
  options.write_timeout_us = 20'000;
  options.stream_queue_bytes_max = 16 << 20;
  Handover<bool> gone;
  TestServer server(
      [&](HttpRequest, ExchangePtr exchange) {
        exchange->StartStream(200, {});
        // Below the queue's limit, and more than the kernel takes: only time can tell.
        EXPECT_TRUE(exchange->Write(std::string(8 << 20, 'a')));
        exchange->OnClientGone([&, exchange] { gone.Give(exchange->queued_bytes() == 0); });
      },
      options);
  RawClient client(server->port(), /*receive_bytes=*/4096);
  client.Send(kGet);
  EXPECT_TRUE(gone.Take());
  EXPECT_EQ(server->stats().slow_readers_total, 1);
}

TEST(HttpLimitsTest, BigWholeAnswersAreNoSlowReaders) {
  HttpServerOptions options;
  options.stream_queue_bytes_max = 1000;
  const std::string big(8 << 20, 'b');
  TestServer server([&](HttpRequest, ExchangePtr exchange) { exchange->Respond(200, {}, big); },
                    options);
  RawClient client(server->port(), /*receive_bytes=*/4096);
  client.Send(kGet);
  EXPECT_EQ(client.ReadResponse().body, big);
}

class VanishingTest : public testing::TestWithParam<bool> {};

TEST_P(VanishingTest, CancelsTheWorkOnce) {
  const bool streaming = GetParam();
  for (const bool reset : {false, true}) {
    Handover<ExchangePtr> taken;
    Handover<bool> gone;
    TestServer server([&](HttpRequest, ExchangePtr exchange) {
      exchange->OnClientGone([&] { gone.Give(true); });  // a second call would throw
      taken.Give(std::move(exchange));
    });
    RawClient client(server->port());
    client.Send(kGet);
    const ExchangePtr exchange = taken.Take();
    if (streaming) {
      exchange->StartStream(200, {});
      EXPECT_TRUE(exchange->Write("abc"));
      client.ReadUntil("abc");
    }
    if (reset) {
      client.Reset();
    } else {
      client.CloseWriting();
    }
    EXPECT_TRUE(gone.Take());
    if (streaming) {
      EXPECT_FALSE(exchange->Write("def"));
    }
    // Late watchers are told at once.
    Handover<bool> late;
    exchange->OnClientGone([&] { late.Give(true); });
    EXPECT_TRUE(late.Take());
    if (streaming) {
      exchange->End();
    } else {
      exchange->Respond(200, {}, "nobody reads this");
    }
    server->Stop(0);
    EXPECT_EQ(server->stats().clients_gone_total, 1);
  }
}
INSTANTIATE_TEST_SUITE_P(Both, VanishingTest, testing::Bool());

TEST(HttpLimitsTest, LeavingAfterTheAnswerIsNoCancel) {
  std::atomic<int> gone{0};
  TestServer server([&](HttpRequest, ExchangePtr exchange) {
    exchange->OnClientGone([&] { ++gone; });
    exchange->Respond(200, {}, "ok");
  });
  for (int i = 0; i < 20; ++i) {
    RawClient client(server->port());
    client.Send(kGet);
    EXPECT_EQ(client.ReadResponse().body, "ok");
  }
  server->Stop(0);
  EXPECT_EQ(gone, 0);
  EXPECT_EQ(server->stats().clients_gone_total, 0);
}

TEST(HttpLimitsTest, AClientThatVanishesInItsRequestIsForgotten) {
  TestServer server(Ok);
  RawClient(server->port()).Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab");
  RawClient other(server->port());
  other.Send(kGet);
  EXPECT_EQ(other.ReadResponse().status, 200);
  server->Stop(60'000'000);
  EXPECT_EQ(server->stats().requests_total, 1);
  EXPECT_EQ(server->stats().connections, 0);
}

}  // namespace
}  // namespace longhaul
