#include "tests/contract/socket_lane.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "kv_transfer/lane/control_connection.h"

namespace longhaul {
namespace {

constexpr char kHost[] = "127.0.0.1";

struct Operation {
  std::vector<SendPiece> from;
  std::vector<ReceivePiece> to;  // without places: discarded
  LaneDone done;
};

class SocketLane final : public Lane {
 public:
  // The receiving end has a listener, the sending end the receiving one's port.
  SocketLane(int listener, int port)
      : listener_(listener),
        port_(port),
        abort_fd_(eventfd(0, EFD_CLOEXEC)),
        thread_([this] { Run(); }) {}
  ~SocketLane() override {
    Abort();
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    thread_.join();
    for (const int fd : {listener_, socket_, abort_fd_}) {
      if (fd >= 0) close(fd);
    }
  }

  void Join() override {
    absl::MutexLock lock(&mutex_);
    joined_ = true;
  }
  void Send(std::vector<SendPiece> pieces, LaneDone done) override {
    LH_CHECK(listener_ < 0, "a receiver sends");
    Queue({std::move(pieces), {}, std::move(done)});
  }
  void Receive(std::vector<ReceivePiece> pieces, LaneDone done) override {
    LH_CHECK(listener_ >= 0, "a sender receives");
    Queue({{}, std::move(pieces), std::move(done)});
  }
  void Discard(std::vector<int64_t> sizes, LaneDone done) override {
    std::vector<ReceivePiece> pieces;
    for (const int64_t bytes : sizes) pieces.push_back({nullptr, bytes});
    Receive(std::move(pieces), std::move(done));
  }
  void Abort() override {
    absl::MutexLock lock(&mutex_);
    aborted_ = true;
    const uint64_t one = 1;
    LH_CHECK(write(abort_fd_, &one, sizeof one) == sizeof one, "eventfd");
  }
  std::string path() const override { return "socket"; }

 private:
  void Queue(Operation operation) {
    absl::MutexLock lock(&mutex_);
    queue_.push_back(std::move(operation));
  }

  // The lane's own thread, from here on.
  void Run() {
    bool open = AwaitJoin() && Open();
    while (true) {
      Operation operation;
      {
        absl::MutexLock lock(&mutex_);
        const auto is_due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
          return stopping_ || !queue_.empty();
        };
        mutex_.Await(absl::Condition(&is_due));
        if (queue_.empty()) return;
        operation = std::move(queue_.front());
        queue_.pop_front();
      }
      open = open && Move(operation);
      std::move(operation.done)(open ? absl::OkStatus()
                                     : absl::CancelledError("the lane was aborted"));
    }
  }

  // False, as of all below, when the lane was aborted.
  bool AwaitJoin() {
    absl::MutexLock lock(&mutex_);
    const auto is_due = [this]()
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return joined_ || aborted_; };
    mutex_.Await(absl::Condition(&is_due));
    return !aborted_;
  }

  bool Open() {
    if (listener_ >= 0) {
      if (!AwaitReady(listener_, POLLIN)) return false;
      socket_ = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    } else if (const absl::StatusOr<int> socket = ConnectTo(kHost, port_); socket.ok()) {
      socket_ = *socket;
    }
    return true;
  }

  bool Move(Operation& operation) {
    for (const SendPiece& piece : operation.from) {
      LH_CHECK(piece.bytes > 0, "an empty piece");
      int64_t bytes = piece.bytes;
      if (!Put(reinterpret_cast<const std::byte*>(&bytes), sizeof bytes) ||
          !Put(piece.data, piece.bytes)) {
        return false;
      }
    }
    for (const ReceivePiece& piece : operation.to) {
      int64_t bytes = 0;
      if (!Take(reinterpret_cast<std::byte*>(&bytes), sizeof bytes)) return false;
      LH_CHECK(bytes == piece.bytes,
               absl::StrCat("a piece of ", bytes, " bytes met one of ", piece.bytes));
      std::vector<std::byte> nowhere(piece.data == nullptr ? bytes : 0);
      if (!Take(piece.data == nullptr ? nowhere.data() : piece.data, bytes)) return false;
    }
    return true;
  }

  bool Put(const std::byte* data, int64_t bytes) {
    return Pass(POLLOUT, bytes, [&](int64_t done) {
      return send(socket_, data + done, bytes - done, MSG_DONTWAIT | MSG_NOSIGNAL);
    });
  }
  bool Take(std::byte* data, int64_t bytes) {
    return Pass(POLLIN, bytes, [&](int64_t done) {
      return recv(socket_, data + done, bytes - done, MSG_DONTWAIT);
    });
  }
  template <typename Step>
  bool Pass(short event, int64_t bytes, Step step) {
    for (int64_t done = 0; done < bytes;) {
      if (!AwaitReady(socket_, event)) return false;
      const ssize_t moved = step(done);
      if (moved > 0) done += moved;
      const bool is_gone = moved == 0 || (moved < 0 && errno != EAGAIN);
      if (is_gone && !AwaitReady(-1, 0)) return false;
    }
    return true;
  }

  bool AwaitReady(int fd, short event) {
    pollfd waits[] = {{abort_fd_, POLLIN, 0}, {fd, event, 0}};
    poll(waits, std::size(waits), -1);
    return waits[0].revents == 0;
  }

  const int listener_;
  const int port_;
  const int abort_fd_;
  int socket_ = -1;
  absl::Mutex mutex_;
  std::deque<Operation> queue_ ABSL_GUARDED_BY(mutex_);
  bool joined_ ABSL_GUARDED_BY(mutex_) = false;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<LaneMaker::Offered> SocketLaneMaker::Offer() {
  LH_ASSIGN_OR_RETURN(const Listener listener, ListenAt(kHost));
  return Offered{std::make_unique<SocketLane>(listener.socket, listener.port),
                 absl::StrCat(listener.port)};
}

absl::StatusOr<std::unique_ptr<Lane>> SocketLaneMaker::Take(const std::string& address) {
  int port = 0;
  if (!absl::SimpleAtoi(address, &port)) return absl::InvalidArgumentError("this is no port");
  return std::make_unique<SocketLane>(-1, port);
}

}  // namespace longhaul
