// A server on a free port whose answers are a function, for tests.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <memory>
#include <utility>

#include "common/http/http_server.h"

namespace longhaul {

using Answer = std::function<void(HttpRequest, std::shared_ptr<HttpExchange>)>;

class TestServer final : public HttpHandler {
 public:
  explicit TestServer(Answer answer, HttpServerOptions options = {}) : answer_(std::move(answer)) {
    auto started = HttpServer::Start(std::move(options), this);
    EXPECT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) override {
    answer_(std::move(request), std::move(exchange));
  }
  HttpServer& operator*() { return *server_; }
  HttpServer* operator->() { return server_.get(); }

 private:
  const Answer answer_;
  std::unique_ptr<HttpServer> server_;
};

// Something an edge thread hands to the test's thread.
template <typename T>
class Handover {
 public:
  void Give(T value) { promise_.set_value(std::move(value)); }
  T Take() {
    auto future = promise_.get_future();
    EXPECT_EQ(future.wait_for(std::chrono::seconds(30)), std::future_status::ready);
    return future.get();
  }

 private:
  std::promise<T> promise_;
};

}  // namespace longhaul
