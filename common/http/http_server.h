// HttpServer: HTTP/1.1 for the router's API and for every process's /metrics. It knows nothing of
// language models. A few edge threads carry all connections with coroutines; each connection lives
// on one of them. Requests are framed by RequestParser; refusals are answered here with an OpenAI
// error body and close the connection.
//
// One request at a time per connection; pipelined ones wait in a bounded buffer. While an answer is
// being computed the server keeps reading, so it sees a client that goes away. A client that has
// pipelined more than the buffer is seen to be gone only when a write fails.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/http/http_exchange.h"
#include "common/http/request_parser.h"

namespace longhaul {

struct HttpServerOptions {
  std::string address = "127.0.0.1";  // IPv4 or IPv6 address to listen on; 0.0.0.0 or :: for all
  int port = 0;                       // 0 lets the kernel choose; see HttpServer::port()
  int threads = 2;                    // edge threads
  RequestLimits limits;               // of one request
  int64_t connections_max = 4096;     // above it a connection is answered 503 and closed
  int64_t pipelined_bytes_max = 64 << 10;    // read ahead of the answer to the request before
  int64_t bodies_bytes_max = 1 << 30;        // of all requests still arriving; above it answer 503
  int64_t stream_queue_bytes_max = 1 << 20;  // of one stream, unread by the client; above it drop
  int64_t socket_send_bytes = 256 << 10;  // the kernel's queue of one connection, not counted above
  int64_t idle_timeout_us = 75'000'000;   // between requests; then close without a word
  int64_t header_timeout_us = 10'000'000;  // first byte to the end of the headers; then 408
  int64_t body_timeout_us = 60'000'000;    // end of the headers to the end of the body; then 408
  int64_t write_timeout_us = 30'000'000;   // a client that takes no byte for this long is dropped
  int64_t linger_us = 2'000'000;           // after the last answer, for the client to close first
  std::string port_flag = "--port";        // how errors name the flag that sets `port`
};

// Counters since start, except where it says now.
struct HttpServerStats {
  int64_t connections = 0;  // now
  int64_t connections_total = 0;
  int64_t connections_refused_total = 0;  // answered 503, or closed, for connections_max
  int64_t requests_total = 0;             // handed to the handler
  int64_t requests_refused_total = 0;     // 4xx and 5xx of the framing and of the limits
  int64_t slow_readers_total = 0;         // dropped for stream_queue_bytes_max or write_timeout_us
  int64_t clients_gone_total = 0;         // closed or reset before their answer ended
};

class HttpServer {
 public:
  // Listens and starts the threads. `handler` must outlive the server. Errors: InvalidArgument for
  // an address that does not parse or is not this host's, AlreadyExists for a taken port (naming
  // the owner where /proc tells), PermissionDenied for a privileged port.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options,
                                                           HttpHandler* handler);
  virtual ~HttpServer() = default;  // Stop(0)

  virtual int port() const = 0;
  // "127.0.0.1:8000", "[::1]:8000"
  virtual std::string address() const = 0;
  virtual HttpServerStats stats() const = 0;  // any thread

  // Closes the listening socket and idle connections, lets running exchanges end, each connection
  // closing after its answer; what is left after `deadline_us` is cut off and its OnClientGone
  // runs. Then joins the threads; exchanges still held do nothing from then on. Idempotent; not
  // from an edge thread.
  virtual void Stop(int64_t deadline_us) = 0;
};

}  // namespace longhaul
