#include "kv_transfer/lane/control_connection.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

constexpr size_t kReadBytes = 64 << 10;

absl::Status ErrnoStatus(absl::string_view what, int error) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(error)));
}

void SetOption(int socket, int level, int name, int value) {
  setsockopt(socket, level, name, &value, sizeof value);
}

// A host that vanishes is noticed within two seconds; a process that ends, at once.
void SetUp(int socket) {
  SetOption(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(socket, IPPROTO_TCP, TCP_KEEPIDLE, 1);
  SetOption(socket, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  SetOption(socket, IPPROTO_TCP, TCP_KEEPCNT, 1);
  SetOption(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, 2000);
}

void Watch(int epoll_fd, int operation, int socket, bool wants_write) {
  epoll_event event{};
  event.events = wants_write ? EPOLLIN | EPOLLOUT : EPOLLIN;
  LH_CHECK(epoll_ctl(epoll_fd, operation, socket, &event) == 0, std::strerror(errno));
}

using AddressInfo = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::StatusOr<AddressInfo> NumericAddress(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", host, "' is no numeric address: ", gai_strerror(error)));
  }
  return AddressInfo(found, &freeaddrinfo);
}

}  // namespace

ControlConnection::ControlConnection(int socket, int epoll_fd)
    : socket_(socket), epoll_fd_(epoll_fd) {
  SetUp(socket_);
  Watch(epoll_fd_, EPOLL_CTL_ADD, socket_, wants_write_);
}

ControlConnection::~ControlConnection() { close(socket_); }

void ControlConnection::Send(const LaneMessage& message) {
  message.AppendTo(outgoing_);
  // An error shows again in Pump.
  Flush().IgnoreError();
}

absl::Status ControlConnection::Flush() {
  size_t sent = 0;
  int error = 0;
  while (sent < outgoing_.size()) {
    const ssize_t bytes =
        send(socket_, outgoing_.data() + sent, outgoing_.size() - sent, MSG_NOSIGNAL);
    if (bytes < 0) {
      error = errno;
      if (error == EINTR) continue;
      break;
    }
    sent += bytes;
  }
  outgoing_.erase(0, sent);
  const bool wants_write = !outgoing_.empty();
  if (wants_write != wants_write_) {
    wants_write_ = wants_write;
    Watch(epoll_fd_, EPOLL_CTL_MOD, socket_, wants_write_);
  }
  // ENOTCONN: the connection is still being made.
  if (error == 0 || error == EAGAIN || error == ENOTCONN) return absl::OkStatus();
  return ErrnoStatus("cannot write to the other end of the link", error);
}

absl::Status ControlConnection::Pump(const std::function<bool(LaneMessage)>& take) {
  absl::Status status = Flush();
  bool end = false;
  while (!end) {
    const size_t before = incoming_.size();
    incoming_.resize(before + kReadBytes);
    const ssize_t bytes = recv(socket_, incoming_.data() + before, kReadBytes, 0);
    const int error = errno;
    incoming_.resize(before + (bytes > 0 ? bytes : 0));
    if (bytes > 0) continue;
    if (bytes < 0 && error == EINTR) continue;
    if (bytes == 0) {
      status = absl::UnavailableError("the other end of the link closed it");
    } else if (error != EAGAIN && error != ENOTCONN) {
      status = ErrnoStatus("the connection to the other end of the link broke", error);
    }
    end = true;
  }
  size_t consumed = 0;
  bool malformed = false;
  while (auto message = ParseLaneMessage(incoming_, &consumed, &malformed)) {
    if (!take(*std::move(message))) break;
  }
  incoming_.erase(0, consumed);
  if (malformed) return absl::UnavailableError("the other end of the link sent what is no message");
  return status;
}

absl::StatusOr<Listener> ListenAt(const std::string& host) {
  LH_ASSIGN_OR_RETURN(const AddressInfo address, NumericAddress(host, 0));
  const int listener =
      socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  sockaddr_storage bound{};
  socklen_t bound_bytes = sizeof bound;
  if (listener < 0 || bind(listener, address->ai_addr, address->ai_addrlen) != 0 ||
      listen(listener, SOMAXCONN) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&bound), &bound_bytes) != 0) {
    const int error = errno;
    if (listener >= 0) close(listener);
    return ErrnoStatus(absl::StrCat("cannot listen at ", host), error);
  }
  const int port = bound.ss_family == AF_INET
                       ? ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port)
                       : ntohs(reinterpret_cast<const sockaddr_in6&>(bound).sin6_port);
  return Listener{listener, port};
}

absl::StatusOr<int> ConnectTo(const std::string& host, int port) {
  LH_ASSIGN_OR_RETURN(const AddressInfo address, NumericAddress(host, port));
  const int connecting =
      socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  if (connecting < 0) return ErrnoStatus("cannot make a socket", errno);
  if (connect(connecting, address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS) {
    const int error = errno;
    close(connecting);
    return ErrnoStatus(absl::StrCat("cannot connect to ", host, " port ", port), error);
  }
  return connecting;
}

}  // namespace longhaul
