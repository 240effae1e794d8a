#include "kv_transfer/lane/lane_transport.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "kv_transfer/lane/lane_receiver.h"
#include "kv_transfer/lane/lane_sender.h"

namespace longhaul {
namespace {

// Where a link's receiving end is, as text: "transport|host|port|secret|address of its lane|hash of
// what stands before", the last three in hexadecimal digits.
struct LaneAddress {
  std::string host;
  int port = 0;
  uint64_t secret = 0;
  std::string lane;

  std::string ToString(absl::string_view transport) const {
    const std::string body = absl::StrCat(transport, "|", host, "|", port, "|", absl::Hex(secret),
                                          "|", absl::BytesToHexString(lane));
    return absl::StrCat(body, "|", HashOf(body));
  }
  static absl::StatusOr<LaneAddress> Parse(absl::string_view transport, absl::string_view text) {
    const std::vector<absl::string_view> fields = absl::StrSplit(text, '|');
    LaneAddress address;
    if (fields.size() != 6 || fields[0] != transport ||
        fields[5] != HashOf(text.substr(0, text.rfind('|'))) ||
        !absl::SimpleAtoi(fields[2], &address.port) ||
        !absl::SimpleHexAtoi(fields[3], &address.secret)) {
      return absl::InvalidArgumentError(
          absl::StrCat("these bytes are no address of a link over ", transport));
    }
    address.host = std::string(fields[1]);
    address.lane = absl::HexStringToBytes(fields[4]);
    return address;
  }

 private:
  static std::string HashOf(absl::string_view body) {
    return absl::StrCat(absl::Hex(Hash64Of(body), absl::kZeroPad16));
  }
};

void WatchForReading(int epoll_fd, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  LH_CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0, std::strerror(errno));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LaneTransport>> LaneTransport::Make(std::unique_ptr<LaneMaker> lanes,
                                                                   const std::string& host) {
  LH_ASSIGN_OR_RETURN(const Listener listener, ListenAt(host));
  return std::unique_ptr<LaneTransport>(new LaneTransport(std::move(lanes), host, listener));
}

LaneTransport::LaneTransport(std::unique_ptr<LaneMaker> lanes, std::string host, Listener listener)
    : lanes_(std::move(lanes)),
      host_(std::move(host)),
      listener_(listener),
      epoll_fd_(epoll_create1(EPOLL_CLOEXEC)),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  LH_CHECK(epoll_fd_ >= 0 && wake_fd_ >= 0, std::strerror(errno));
  WatchForReading(epoll_fd_, wake_fd_);
  WatchForReading(epoll_fd_, listener_.socket);
}

LaneTransport::~LaneTransport() {
  LH_CHECK(std::count(links_.begin(), links_.end(), nullptr) == std::ssize(links_),
           "a transport ends before its links");
  unknown_.clear();
  for (const int fd : {listener_.socket, epoll_fd_, wake_fd_}) close(fd);
}

absl::StatusOr<Transport::Accepted> LaneTransport::Accept() {
  LH_ASSIGN_OR_RETURN(LaneMaker::Offered offered, lanes_->Offer());
  const uint64_t secret = RandomId();
  auto link = std::make_unique<LaneReceiver>(this, std::move(offered.lane));
  waiting_.emplace(secret, link.get());
  const LaneAddress address = {host_, listener_.port, secret, std::move(offered.address)};
  return Accepted{std::move(link), address.ToString(name())};
}

absl::StatusOr<std::unique_ptr<Link>> LaneTransport::Connect(const std::string& text) {
  LH_ASSIGN_OR_RETURN(const LaneAddress address, LaneAddress::Parse(name(), text));
  LH_ASSIGN_OR_RETURN(std::unique_ptr<Lane> lane, lanes_->Take(address.lane));
  LH_ASSIGN_OR_RETURN(const int socket, ConnectTo(address.host, address.port));
  return std::make_unique<LaneSender>(this, std::move(lane),
                                      std::make_unique<ControlConnection>(socket, epoll_fd_),
                                      address.secret);
}

void LaneTransport::Remove(LaneLink* link) {
  absl::erase_if(waiting_, [&](const auto& entry) { return entry.second == link; });
  std::replace(links_.begin(), links_.end(), link, static_cast<LaneLink*>(nullptr));
}

void LaneTransport::TakeConnections() {
  while (true) {
    const int socket = accept4(listener_.socket, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0) break;
    unknown_.push_back(std::make_unique<ControlConnection>(socket, epoll_fd_));
    if (unknown_.size() > kUnknownMax) unknown_.pop_front();
  }
  unknown_.erase(std::remove_if(unknown_.begin(), unknown_.end(),
                                [this](auto& connection) { return !StaysUnknown(connection); }),
                 unknown_.end());
}

bool LaneTransport::StaysUnknown(std::unique_ptr<ControlConnection>& connection) {
  std::optional<LaneMessage> first;
  const absl::Status status = connection->Pump([&](LaneMessage message) {
    first = std::move(message);
    return false;
  });
  if (!first.has_value()) return status.ok();
  const auto waiting = waiting_.find(first->tag);
  if (first->kind != LaneMessage::Kind::kHello || waiting == waiting_.end()) {
    ++drops_.foreign;
    return false;
  }
  LaneReceiver* const link = waiting->second;
  waiting_.erase(waiting);
  link->Meet(std::move(connection));
  return false;
}

bool LaneTransport::Poll() {
  std::array<epoll_event, 16> events;
  const bool any = epoll_wait(epoll_fd_, events.data(), events.size(), 0) > 0;
  if (any) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t drained = read(wake_fd_, &count, sizeof count);
    TakeConnections();
  }
  bool busy = any;
  for (size_t i = 0; i < links_.size(); ++i) {
    if (links_[i] != nullptr && (any || links_[i]->has_due())) busy |= links_[i]->Poll();
  }
  links_.erase(std::remove(links_.begin(), links_.end(), nullptr), links_.end());
  return busy;
}

bool LaneTransport::ArmWait() {
  return std::none_of(links_.begin(), links_.end(),
                      [](const LaneLink* link) { return link->has_due(); });
}

}  // namespace longhaul
