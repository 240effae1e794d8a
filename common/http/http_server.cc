#include "common/http/http_server.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/http/connection.h"
#include "common/http/edge.h"
#include "common/http/port_owner.h"

namespace longhaul {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
// Connections above connections_max that are being told so; above that they are just closed.
constexpr int64_t kTurnedAwayMax = 64;
// Accepting fails only for want of descriptors or memory, which somebody else must give back.
constexpr auto kAcceptRetry = std::chrono::milliseconds(100);

absl::Status ListenError(const HttpServerOptions& options, const error_code& error) {
  const std::string where = absl::StrCat(options.address, " port ", options.port);
  if (error == asio::error::address_in_use) {
    return absl::AlreadyExistsError(
        absl::StrCat("cannot listen on ", where, ": ", PortOwner(options.port),
                     " already does. Stop it, or choose another port with ", options.port_flag,
                     " (0 picks a free one)."));
  }
  if (error == asio::error::access_denied) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot listen on ", where, ": ports below 1024 need a privilege. Choose one ",
                     "above with ", options.port_flag, "."));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "cannot listen on ", where, ": ", error.message(),
      ". The address must be one of this host's, such as 127.0.0.1, or 0.0.0.0 for all."));
}

class HttpServerImpl final : public HttpServer {
 public:
  HttpServerImpl(HttpServerOptions options, HttpHandler* handler) {
    state_.options = std::move(options);
    state_.handler = handler;
    for (int i = 0; i < state_.options.threads; ++i) {
      edges_.push_back(std::make_shared<Edge>(absl::StrCat("edge-", i)));
    }
  }
  ~HttpServerImpl() override { Stop(0); }

  absl::Status Listen();

  int port() const override { return local_.port(); }
  std::string address() const override {
    const std::string host = local_.address().to_string();
    return local_.address().is_v6() ? absl::StrCat("[", host, "]:", local_.port())
                                    : absl::StrCat(host, ":", local_.port());
  }
  HttpServerStats stats() const override;
  void Stop(int64_t deadline_us) override;

 private:
  asio::awaitable<void> AcceptLoop();
  void Admit(tcp::socket socket, std::shared_ptr<Edge> edge);
  void AddLive(int64_t count);
  // Whether all connections and the acceptor have ended within `wait_us`.
  bool AwaitNoneLive(int64_t wait_us);

  ServerState state_;
  std::vector<std::shared_ptr<Edge>> edges_;
  std::unique_ptr<tcp::acceptor> acceptor_;  // on the first edge
  tcp::endpoint local_;
  bool stopped_ = false;

  std::mutex live_mutex_;
  std::condition_variable live_changed_;
  int64_t live_ = 0;  // connections and the acceptor; guarded by live_mutex_
};

absl::Status HttpServerImpl::Listen() {
  const HttpServerOptions& options = state_.options;
  error_code error;
  const asio::ip::address address = asio::ip::make_address(options.address, error);
  if (error) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", options.address,
                     "' is not an IP address to listen on. Use 127.0.0.1, 0.0.0.0 or ::."));
  }
  if (options.port < 0 || options.port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat(
        "port ", options.port, " is not between 0 and 65535; see ", options.port_flag, "."));
  }
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(options.port));
  acceptor_ = std::make_unique<tcp::acceptor>(edges_.front()->io());
  acceptor_->open(endpoint.protocol(), error);
  // A restarted server must not wait for the old connections' TIME_WAIT.
  if (!error) acceptor_->set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor_->bind(endpoint, error);
  if (!error) acceptor_->listen(asio::socket_base::max_listen_connections, error);
  if (!error) local_ = acceptor_->local_endpoint(error);
  if (error) {
    acceptor_ = nullptr;
    return ListenError(options, error);
  }
  AddLive(1);
  co_spawn(edges_.front()->io(), AcceptLoop(), [this](std::exception_ptr thrown) {
    LH_CHECK(thrown == nullptr, "an exception left the accept loop");
    AddLive(-1);
  });
  return absl::OkStatus();
}

asio::awaitable<void> HttpServerImpl::AcceptLoop() {
  asio::steady_timer retry(edges_.front()->io());
  for (size_t next = 0; !edges_.front()->draining; ++next) {
    const std::shared_ptr<Edge> edge = edges_[next % edges_.size()];
    auto [error, socket] = co_await acceptor_->async_accept(edge->io(), kAwait);
    if (edges_.front()->draining) break;
    if (!error) {
      Admit(std::move(socket), edge);
    } else if (error != asio::error::connection_aborted) {
      LogError("http accept failed", {{"error", error.message()}});
      retry.expires_after(kAcceptRetry);
      co_await retry.async_wait(kAwait);
    }
  }
}

void HttpServerImpl::Admit(tcp::socket socket, std::shared_ptr<Edge> edge) {
  const int64_t connections = state_.connections += 1;
  const int64_t spare = state_.options.connections_max - connections;
  if (spare < -kTurnedAwayMax) {
    state_.connections -= 1;
    state_.connections_refused_total += 1;
    return;
  }
  state_.connections_total += 1;
  AddLive(1);
  edge->Post([this, edge, spare, socket = std::move(socket)]() mutable {
    const auto connection = std::make_shared<Connection>(&state_, edge, std::move(socket), [this] {
      state_.connections -= 1;
      AddLive(-1);
    });
    if (spare < 0) {
      connection->TurnAway();
    } else {
      connection->Serve();
    }
  });
}

void HttpServerImpl::AddLive(int64_t count) {
  const std::lock_guard<std::mutex> lock(live_mutex_);
  live_ += count;
  if (live_ == 0) live_changed_.notify_all();
}

bool HttpServerImpl::AwaitNoneLive(int64_t wait_us) {
  std::unique_lock<std::mutex> lock(live_mutex_);
  return live_changed_.wait_for(lock, std::chrono::microseconds(wait_us),
                                [this] { return live_ == 0; });
}

HttpServerStats HttpServerImpl::stats() const {
  HttpServerStats stats;
  stats.connections = state_.connections;
  stats.connections_total = state_.connections_total;
  stats.connections_refused_total = state_.connections_refused_total;
  stats.requests_total = state_.requests_total;
  stats.requests_refused_total = state_.requests_refused_total;
  stats.slow_readers_total = state_.slow_readers_total;
  stats.clients_gone_total = state_.clients_gone_total;
  return stats;
}

void HttpServerImpl::Stop(int64_t deadline_us) {
  if (stopped_) return;
  stopped_ = true;
  for (const auto& edge : edges_) {
    edge->draining = true;
    AddLive(1);  // this task too must have run before the acceptor can be destroyed
    edge->Post([this, edge] {
      error_code ignored;
      if (edge == edges_.front() && acceptor_ != nullptr) acceptor_->close(ignored);
      const std::vector<Connection*> all(edge->connections.begin(), edge->connections.end());
      for (Connection* connection : all) connection->Drain();
      AddLive(-1);
    });
  }
  // Repeated, for a connection that was still being admitted during the round before.
  constexpr int64_t kCutOffUs = 1'000'000;
  for (int64_t wait_us = deadline_us; !AwaitNoneLive(wait_us); wait_us = kCutOffUs) {
    for (const auto& edge : edges_) {
      edge->Post([edge] {
        const std::vector<Connection*> all(edge->connections.begin(), edge->connections.end());
        for (Connection* connection : all) connection->CutOff();
      });
    }
  }
  acceptor_.reset();
  for (const auto& edge : edges_) edge->Stop();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options,
                                                              HttpHandler* handler) {
  LH_CHECK(options.threads > 0, absl::StrCat("threads=", options.threads));
  auto server = std::make_unique<HttpServerImpl>(std::move(options), handler);
  if (absl::Status listening = server->Listen(); !listening.ok()) return listening;
  return server;
}

}  // namespace longhaul
