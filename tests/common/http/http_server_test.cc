#include "common/http/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/http/admin_routes.h"
#include "tests/common/http/raw_client.h"
#include "tests/common/http/test_server.h"

namespace longhaul {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ExchangePtr = std::shared_ptr<HttpExchange>;

constexpr char kGet[] = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

// Answers with what was understood of the request.
void Echo(HttpRequest request, ExchangePtr exchange) {
  exchange->Respond(
      200, {{"content-type", "text/plain"}},
      absl::StrCat(request.method, " ", request.path, "?", request.query, " ", request.body));
}

TEST(HttpServerTest, KeepsTheConnectionForTheNextRequest) {
  TestServer server(Echo);
  RawClient client(server->port());
  for (int i = 0; i < 3; ++i) {
    client.Send(
        absl::StrCat("POST /p?q=", i, " HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"));
    const RawResponse response = client.ReadResponse();
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, absl::StrCat("POST /p?q=", i, " hi"));
    EXPECT_EQ(response.Header("connection"), "");
  }
  EXPECT_EQ(server->stats().connections_total, 1);
  EXPECT_EQ(server->stats().requests_total, 3);
}

TEST(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  TestServer server(Echo);
  RawClient client(server->port());
  std::string requests;
  constexpr int kRequests = 200;
  for (int i = 0; i < kRequests; ++i) {
    absl::StrAppend(
        &requests, "POST /", i,
        " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n");
  }
  client.Send(requests);
  for (int i = 0; i < kRequests; ++i) {
    EXPECT_EQ(client.ReadResponse().body, absl::StrCat("POST /", i, "? b"));
  }
}

TEST(HttpServerTest, PipelinedBytesBeyondTheBufferWait) {
  HttpServerOptions options;
  options.pipelined_bytes_max = 16;
  TestServer server(Echo, options);
  RawClient client(server->port());
  std::string requests;
  for (int i = 0; i < 50; ++i) requests += kGet;
  client.Send(requests);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(client.ReadResponse().body, "GET /a? ");
}

TEST(HttpServerTest, ClosesWhenAsked) {
  TestServer server(Echo);
  RawClient client(server->port());
  client.Send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.Header("connection"), "close");
  EXPECT_TRUE(client.AtEnd());
}

TEST(HttpServerTest, Http10ClosesUnlessAskedNotTo) {
  TestServer server(Echo);
  RawClient once(server->port());
  once.Send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(once.ReadResponse().Header("connection"), "close");
  EXPECT_TRUE(once.AtEnd());
  RawClient kept(server->port());
  for (int i = 0; i < 2; ++i) {
    kept.Send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_EQ(kept.ReadResponse().Header("connection"), "keep-alive");
  }
}

TEST(HttpServerTest, HeadHasTheLengthAndNoBody) {
  TestServer server(Echo);
  RawClient client(server->port());
  client.Send("HEAD /abc HTTP/1.1\r\nHost: x\r\n\r\n");
  const RawResponse head = client.ReadResponse(/*head_request=*/true);
  EXPECT_EQ(head.Header("content-length"), "11");
  client.Send(kGet);  // would be misread if HEAD had a body
  EXPECT_EQ(client.ReadResponse().body, "GET /a? ");
}

TEST(HttpServerTest, HeadOfAStreamHasNoBody) {
  TestServer server([](HttpRequest, ExchangePtr exchange) {
    exchange->StartStream(200, {});
    EXPECT_TRUE(exchange->Write("abc"));
    exchange->End();
  });
  RawClient client(server->port());
  client.Send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.ReadResponse(/*head_request=*/true).status, 200);
  client.Send(kGet);
  EXPECT_EQ(client.ReadResponse().body, "abc");
}

TEST(HttpServerTest, ContinueIsSentBeforeTheBody) {
  TestServer server(Echo);
  RawClient client(server->port());
  client.Send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(client.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("abc");
  EXPECT_EQ(client.ReadResponse().body, "POST /? abc");
}

TEST(HttpServerTest, RequestIdIsTheClientsOrNew) {
  Handover<HttpRequest> taken;
  std::atomic<int> requests{0};
  TestServer server([&](HttpRequest request, ExchangePtr exchange) {
    exchange->Respond(204, {}, "");
    if (requests++ == 0) taken.Give(std::move(request));
  });
  RawClient client(server->port());
  client.Send("GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: my-id.1\r\n\r\n");
  EXPECT_EQ(client.ReadResponse().Header("x-request-id"), "my-id.1");
  const HttpRequest request = taken.Take();
  EXPECT_EQ(request.request_id, "my-id.1");
  EXPECT_THAT(request.peer, HasSubstr("127.0.0.1:"));
  client.Send("GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: a b<script>\r\n\r\n");
  EXPECT_THAT(client.ReadResponse().Header("x-request-id"), testing::StartsWith("req-"));
}

TEST(HttpServerTest, HeaderValuesCannotEndTheLine) {
  TestServer server([](HttpRequest, ExchangePtr exchange) {
    exchange->Respond(200, {{"x-model", "a\r\nset-cookie: b"}}, "");
  });
  RawClient client(server->port());
  client.Send(kGet);
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.Header("x-model"), "a  set-cookie: b");
  EXPECT_EQ(response.Header("set-cookie"), "");
}

TEST(HttpServerTest, StreamsInChunks) {
  Handover<ExchangePtr> taken;
  TestServer server([&](HttpRequest, ExchangePtr exchange) { taken.Give(std::move(exchange)); });
  RawClient client(server->port());
  client.Send(kGet);
  const ExchangePtr exchange = taken.Take();
  exchange->StartStream(200, {{"content-type", "text/event-stream"}});
  EXPECT_TRUE(exchange->Write("data: {\"a\":1}\n\n"));
  EXPECT_TRUE(exchange->Write(""));  // must not end the stream
  // The event arrives before the stream goes on.
  EXPECT_THAT(client.ReadUntil("\n\n\r\n"), HasSubstr("\r\n\r\nf\r\ndata: {\"a\":1}\n\n\r\n"));
  EXPECT_TRUE(exchange->Write("data: [DONE]\n\n"));
  exchange->End();
  EXPECT_EQ(client.ReadUntil("0\r\n\r\n"), "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
}

TEST(HttpServerTest, StreamsToHttp10UntilClose) {
  TestServer server([](HttpRequest, ExchangePtr exchange) {
    exchange->StartStream(200, {});
    exchange->Write("abc");
    exchange->Write("def");
    exchange->End();
  });
  RawClient client(server->port());
  client.Send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.Header("transfer-encoding"), "");
  EXPECT_EQ(response.Header("connection"), "close");
  EXPECT_EQ(response.body, "abcdef");
}

TEST(HttpServerTest, AbortLeavesTheStreamUnended) {
  TestServer server([](HttpRequest, ExchangePtr exchange) {
    exchange->StartStream(200, {});
    exchange->Write("data: {\"error\":{}}\n\n");
    exchange->Abort();
    EXPECT_FALSE(exchange->Write("more"));
  });
  RawClient client(server->port());
  client.Send(kGet);
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.body, "data: {\"error\":{}}\n\n");
  EXPECT_FALSE(response.whole);
}

TEST(HttpServerTest, DroppedExchangesAreAnswered) {
  TestServer server([](HttpRequest request, ExchangePtr exchange) {
    if (request.path == "/stream") exchange->StartStream(200, {});
  });
  RawClient client(server->port());
  client.Send(kGet);
  const RawResponse response = client.ReadResponse();
  EXPECT_EQ(response.status, 500);
  EXPECT_THAT(response.body, HasSubstr("\"type\":\"server_error\""));
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_FALSE(client.ReadResponse().whole);
}

TEST(HttpServerTest, ManyStreamsAtOnce) {
  constexpr int kStreams = 200;
  constexpr int kEvents = 50;
  std::atomic<int> arrived{0};
  std::vector<ExchangePtr> exchanges(kStreams);
  std::promise<void> all_here;
  TestServer server([&](HttpRequest request, ExchangePtr exchange) {
    exchanges[std::stoi(request.query)] = std::move(exchange);
    if (++arrived == kStreams) all_here.set_value();
  });
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<RawClient>(server->port()));
    clients.back()->Send(absl::StrCat("GET /?", i, " HTTP/1.1\r\nHost: x\r\n\r\n"));
  }
  ASSERT_EQ(all_here.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
  for (const ExchangePtr& exchange : exchanges) exchange->StartStream(200, {});
  for (int event = 0; event < kEvents; ++event) {
    for (int i = 0; i < kStreams; ++i) {
      EXPECT_TRUE(exchanges[i]->Write(absl::StrCat(i, ":", event, " ")));
    }
  }
  for (const ExchangePtr& exchange : exchanges) exchange->End();
  for (int i = 0; i < kStreams; ++i) {
    std::string expected;
    for (int event = 0; event < kEvents; ++event) absl::StrAppend(&expected, i, ":", event, " ");
    const RawResponse response = clients[i]->ReadResponse();
    EXPECT_EQ(response.body, expected);
    EXPECT_TRUE(response.whole);
  }
  EXPECT_EQ(server->stats().connections, kStreams);
}

TEST(HttpServerTest, TakenPortSaysWhoAndWhatToDo) {
  TestServer server(Echo);
  HttpServerOptions options;
  options.port = server->port();
  options.port_flag = "--http-port";
  const auto second = HttpServer::Start(options, nullptr);
  ASSERT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  const std::string message(second.status().message());
  EXPECT_THAT(message, HasSubstr(absl::StrCat("port ", options.port)));
  EXPECT_THAT(message, HasSubstr(absl::StrCat("process ", getpid(), " (http_server_tes)")));
  EXPECT_THAT(message, HasSubstr("--http-port"));
}

TEST(HttpServerTest, BadAddressesAreExplained) {
  for (const char* address : {"localhost:80", "", "999.0.0.1", "192.0.2.1"}) {
    HttpServerOptions options;
    options.address = address;
    EXPECT_EQ(HttpServer::Start(options, nullptr).status().code(),
              absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST(HttpServerTest, StopWaitsForAnswers) {
  Handover<ExchangePtr> taken;
  TestServer server([&](HttpRequest, ExchangePtr exchange) { taken.Give(std::move(exchange)); });
  RawClient idle(server->port());
  idle.Send("");
  RawClient busy(server->port());
  busy.Send(kGet);
  const ExchangePtr exchange = taken.Take();
  exchange->StartStream(200, {});
  auto stopped = std::async(std::launch::async, [&] { server->Stop(60'000'000); });
  EXPECT_TRUE(idle.AtEnd());
  EXPECT_TRUE(exchange->Write("still here"));
  exchange->End();
  EXPECT_EQ(busy.ReadResponse().body, "still here");
  EXPECT_TRUE(busy.AtEnd());
  stopped.get();
  EXPECT_EQ(server->stats().connections, 0);
  EXPECT_EQ(server->stats().clients_gone_total, 0);
}

TEST(HttpServerTest, StopCutsOffAtTheDeadline) {
  Handover<ExchangePtr> taken;
  TestServer server([&](HttpRequest, ExchangePtr exchange) { taken.Give(std::move(exchange)); });
  RawClient client(server->port());
  client.Send(kGet);
  const ExchangePtr exchange = taken.Take();
  exchange->StartStream(200, {});
  std::atomic<int> gone{0};
  exchange->OnClientGone([&] { ++gone; });
  server->Stop(1000);
  EXPECT_EQ(gone, 1);
  EXPECT_FALSE(exchange->Write("late"));  // an exchange may outlive its server
  exchange->End();
  EXPECT_FALSE(client.ReadResponse().whole);
}

TEST(HttpServerTest, ExchangesOutliveTheServer) {
  Handover<ExchangePtr> taken;
  ExchangePtr exchange;
  {
    TestServer server([&](HttpRequest, ExchangePtr made) { taken.Give(std::move(made)); });
    RawClient client(server->port());
    client.Send(kGet);
    exchange = taken.Take();
  }
  exchange->OnClientGone([] { FAIL() << "there is no edge thread to run this"; });
  exchange->Respond(200, {}, "late");
}

TEST(AdminRoutesTest, ServesOperators) {
  std::atomic<bool> ready{false};
  AdminRoutes routes({.metrics = [] { return std::string("longhaul_up 1\n"); },
                      .ready =
                          [&] {
                            return ready ? absl::OkStatus()
                                         : absl::UnavailableError("the model is loading");
                          },
                      .version = [] { return std::string("{\"version\":\"1\"}"); }});
  auto server = HttpServer::Start({}, &routes);
  ASSERT_TRUE(server.ok());
  RawClient client((*server)->port());
  const auto ask = [&](const std::string& line) {
    client.Send(line + " HTTP/1.1\r\nHost: x\r\n\r\n");
    return client.ReadResponse();
  };
  EXPECT_EQ(ask("GET /metrics").body, "longhaul_up 1\n");
  EXPECT_EQ(ask("GET /livez").status, 200);
  EXPECT_EQ(ask("GET /version").body, "{\"version\":\"1\"}");
  EXPECT_EQ(ask("GET /readyz").status, 503);
  EXPECT_THAT(ask("GET /readyz").body, HasSubstr("the model is loading"));
  ready = true;
  EXPECT_EQ(ask("GET /readyz").status, 200);
  const RawResponse post = ask("POST /metrics");
  EXPECT_EQ(post.status, 405);
  EXPECT_EQ(post.Header("allow"), "GET, HEAD");
  const RawResponse missing = ask("GET /nothing");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(missing.body,
            "{\"error\":{\"message\":\"No route /nothing. There are /metrics, /livez, /readyz and "
            "/version.\",\"type\":\"not_found_error\",\"param\":null,\"code\":\"not_found\"}}");
}

TEST(HttpErrorBodyTest, EscapesTheMessage) {
  EXPECT_THAT(HttpErrorBody(400, "c", "a\"b\\c\n\x01 \xc3\xa4"),
              HasSubstr("\"a\\\"b\\\\c\\u000a\\u0001 \xc3\xa4\""));
  EXPECT_THAT(HttpErrorBody(429, "c", ""), HasSubstr("rate_limit_error"));
  EXPECT_THAT(HttpErrorBody(400, "c", ""), Not(HasSubstr("server_error")));
}

}  // namespace
}  // namespace longhaul
