// ControlConnection: one TCP connection between the two ends of a lane link, which carries
// LaneMessages. Never blocks. One thread.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kv_transfer/lane/lane_message.h"

namespace longhaul {

class ControlConnection {
 public:
  // Takes a connected or connecting socket over; `epoll_fd` turns readable when Pump would find
  // something.
  ControlConnection(int socket, int epoll_fd);
  ~ControlConnection();
  ControlConnection(const ControlConnection&) = delete;
  ControlConnection& operator=(const ControlConnection&) = delete;

  // Queues the message and writes what the socket takes.
  void Send(const LaneMessage& message);

  // Reads what has come and calls `take` for each message; a `take` that returns false ends the
  // reading and leaves the rest for the next call. Writes what waits. Error: Unavailable when the
  // peer is gone, with its cause; messages that came before it have been taken.
  absl::Status Pump(const std::function<bool(LaneMessage)>& take);

 private:
  absl::Status Flush();

  const int socket_;
  const int epoll_fd_;
  bool wants_write_ = true;
  std::string incoming_, outgoing_;
};

// A listening socket of `host` (a numeric address) at a port that is free, and that port.
struct Listener {
  int socket = -1;
  int port = 0;
};
absl::StatusOr<Listener> ListenAt(const std::string& host);
// The socket of a connection that is being made.
absl::StatusOr<int> ConnectTo(const std::string& host, int port);

}  // namespace longhaul
