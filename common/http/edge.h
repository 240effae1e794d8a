// Edge: one edge thread of the server and everything that lives on it. Internal to common/http.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "common/http/http_exchange.h"
#include "common/http/http_server.h"

namespace longhaul {

class Connection;

// What all edges of one server share. Outlives them.
struct ServerState {
  HttpServerOptions options;
  HttpHandler* handler = nullptr;

  std::atomic<int64_t> body_bytes{0};  // of requests still arriving
  std::atomic<int64_t> connections{0};
  std::atomic<int64_t> connections_total{0};
  std::atomic<int64_t> connections_refused_total{0};
  std::atomic<int64_t> requests_total{0};
  std::atomic<int64_t> requests_refused_total{0};
  std::atomic<int64_t> slow_readers_total{0};
  std::atomic<int64_t> clients_gone_total{0};
};

// Exchanges hold the edge, so it may outlive the server; after Stop it is an empty shell.
class Edge {
 public:
  explicit Edge(std::string name);
  ~Edge();

  // Runs `task` on the edge thread; after Stop destroys it unrun. Any thread.
  void Post(absl::AnyInvocable<void()> task);

  // Ends the thread and destroys what is left on it. Not from the edge thread.
  void Stop();

  // Before Stop, by the edge thread or by a task or coroutine that Stop waits for.
  boost::asio::io_context& io() { return *io_; }

  // Set once: connections close after the answer at hand.
  std::atomic<bool> draining{false};

  // Edge thread only.
  absl::flat_hash_set<Connection*> connections;
  std::array<char, 64 << 10> read_buffer;  // shared by all connections: used only between awaits

 private:
  std::mutex mutex_;  // held while posting, so that Stop cannot take io_ away under a Post
  std::unique_ptr<boost::asio::io_context> io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

}  // namespace longhaul
