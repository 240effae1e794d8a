#include "tests/common/http/raw_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace longhaul {

std::string RawResponse::Header(absl::string_view name) const {
  for (const absl::string_view line : absl::StrSplit(head, "\r\n")) {
    const size_t colon = line.find(':');
    if (colon == absl::string_view::npos) continue;
    if (absl::EqualsIgnoreCase(line.substr(0, colon), name)) {
      return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    }
  }
  return "";
}

RawClient::RawClient(int port, int receive_bytes) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
  const timeval limit = {30, 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  if (receive_bytes > 0) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
  }
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    ADD_FAILURE() << "connect to port " << port << ": " << strerror(errno);
  }
}

RawClient::~RawClient() {
  if (fd_ >= 0) close(fd_);
}

void RawClient::Send(absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;  // the server may close on what it has seen so far
    bytes.remove_prefix(sent);
  }
}

bool RawClient::Fill() {
  char bytes[16384];
  const ssize_t received = recv(fd_, bytes, sizeof(bytes), 0);
  if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    ADD_FAILURE() << "no answer in time; so far: " << buffer_;
  }
  if (received <= 0) return false;
  buffer_.append(bytes, received);
  return true;
}

std::string RawClient::ReadUntil(absl::string_view mark) {
  size_t at;
  while ((at = buffer_.find(mark.data(), 0, mark.size())) == std::string::npos) {
    if (!Fill()) return std::exchange(buffer_, {});
  }
  std::string read = buffer_.substr(0, at + mark.size());
  buffer_.erase(0, read.size());
  return read;
}

std::string RawClient::ReadToEnd() {
  while (Fill()) {
  }
  return std::exchange(buffer_, {});
}

bool RawClient::AtEnd() { return buffer_.empty() && !Fill(); }

RawResponse RawClient::ReadResponse(bool head_request) {
  RawResponse response;
  response.head = ReadUntil("\r\n\r\n");
  if (response.head.size() < 12 ||
      !absl::SimpleAtoi(response.head.substr(9, 3), &response.status)) {
    return response;
  }
  if (head_request || response.status == 204) {
    response.whole = true;
  } else if (absl::EqualsIgnoreCase(response.Header("transfer-encoding"), "chunked")) {
    while (true) {
      const std::string size_line = ReadUntil("\r\n");
      if (!absl::EndsWith(size_line, "\r\n")) return response;
      const size_t size = strtoul(size_line.c_str(), nullptr, 16);
      while (buffer_.size() < size + 2) {
        if (!Fill()) return response;
      }
      response.body += buffer_.substr(0, size);
      buffer_.erase(0, size + 2);
      if (size == 0) break;
    }
    response.whole = true;
  } else if (size_t length = 0; absl::SimpleAtoi(response.Header("content-length"), &length)) {
    while (buffer_.size() < length) {
      if (!Fill()) return response;
    }
    response.body = buffer_.substr(0, length);
    buffer_.erase(0, length);
    response.whole = true;
  } else {
    response.body = ReadToEnd();
    response.whole = true;
  }
  return response;
}

void RawClient::CloseWriting() { shutdown(fd_, SHUT_WR); }

void RawClient::Reset() {
  const linger at_once = {1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close(fd_);
  fd_ = -1;
}

}  // namespace longhaul
