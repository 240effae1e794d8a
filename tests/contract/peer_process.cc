#include "tests/contract/peer_process.h"

#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/base/check.h"
#include "common/runtime/thread_loop.h"
#include "tests/contract/piece_memory.h"

extern char** environ;

namespace longhaul {
namespace {

void WriteLine(int fd, std::string line) {
  line += '\n';
  LH_CHECK(write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()), line);
}

// False when the other end is gone.
bool ReadLine(int fd, std::string* line) {
  line->clear();
  for (char c = 0; read(fd, &c, 1) == 1;) {
    if (c == '\n') return true;
    *line += c;
  }
  return false;
}

class Peer {
 public:
  explicit Peer(const PeerWire& wire)
      : memory_(*PieceMemory::Open(wire.kind, wire.peer_device)),
        transport_(*wire.make(&memory_->memory())) {}
  ~Peer() {
    OnLoop([&] { link_.reset(); });
  }

  std::string Do(const std::vector<std::string>& words) {
    std::string answer = "ok";
    if (words[0] == "accept") {
      OnLoop([&] {
        auto accepted = transport_->Accept();
        LH_CHECK(accepted.ok(), accepted.status().ToString());
        link_ = std::move(accepted->link);
        answer = absl::BytesToHexString(accepted->address);
      });
    } else if (words[0] == "connect") {
      OnLoop([&] { link_ = *transport_->Connect(absl::HexStringToBytes(words[1])); });
    } else if (words[0] == "send" || words[0] == "receive") {
      Start(words[0] == "send", Number(words[1]), Number(words[2]), Number(words[3]));
    } else if (words[0] == "await") {
      const int64_t count = Number(words[1]);
      const auto enough = [&] { return ended_ >= count; };
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&enough));
    } else if (words[0] == "holds") {
      const auto value = static_cast<std::byte>(Number(words[1]));
      const bool holds = std::all_of(buffers_.begin(), buffers_.end(), [&](const auto& buffer) {
        return memory_->IsFilled(*buffer, value);
      });
      answer = holds ? "yes" : "no";
    }
    return answer;
  }

 private:
  static int64_t Number(const std::string& word) {
    int64_t number = 0;
    LH_CHECK(absl::SimpleAtoi(word, &number), word);
    return number;
  }

  void Start(bool send, int64_t first, int64_t count, int64_t bytes) {
    OnLoop([&] {
      for (int64_t tag = first; tag < first + count; ++tag) {
        const DeviceBuffer& buffer =
            *buffers_.emplace_back(memory_->Filled(bytes, static_cast<std::byte>(tag)));
        const auto done = [this](absl::Status) {
          absl::MutexLock lock(&mutex_);
          ++ended_;
        };
        if (send) {
          link_->Send(tag, {{buffer.data(), bytes}}, done);
        } else {
          link_->Receive(tag, {{buffer.data(), bytes}}, done);
        }
      }
    });
  }

  void OnLoop(absl::FunctionRef<void()> body) {
    absl::Notification finished;
    loop_.Post([&] {
      body();
      finished.Notify();
    });
    finished.WaitForNotification();
  }

  std::unique_ptr<PieceMemory> memory_;
  std::deque<std::unique_ptr<DeviceBuffer>> buffers_;
  std::unique_ptr<WireTransport> transport_;
  ThreadLoop loop_{{.name = "peer"}, transport_.get()};
  std::unique_ptr<Link> link_;
  absl::Mutex mutex_;
  int64_t ended_ = 0;
};

}  // namespace

int RunPeer(int argc, char** argv) {
  LH_CHECK(argc == 4, "usage: --peer FD WIRE");
  int fd = -1;
  LH_CHECK(absl::SimpleAtoi(argv[2], &fd), argv[2]);
  Peer peer(PeerWireOf(argv[3]));
  std::string line;
  while (ReadLine(fd, &line)) WriteLine(fd, peer.Do(absl::StrSplit(line, ' ')));
  return 0;
}

PeerProcess::PeerProcess(const PeerWire& wire) {
  int fds[2];
  LH_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
  control_fd_ = fds[0];
  const int peer_fd = dup(fds[1]);  // without close-on-exec
  close(fds[1]);
  std::vector<std::string> words = {"peer", "--peer", absl::StrCat(peer_fd), wire.name};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  LH_CHECK(posix_spawn(&pid_, "/proc/self/exe", nullptr, nullptr, arguments.data(), environ) == 0,
           "posix_spawn");
  close(peer_fd);
}

PeerProcess::~PeerProcess() {
  Kill();
  close(control_fd_);
}

std::string PeerProcess::Ask(const std::string& command) {
  WriteLine(control_fd_, command);
  std::string answer;
  LH_CHECK(ReadLine(control_fd_, &answer), absl::StrCat("the peer ended during: ", command));
  return answer;
}

std::string PeerProcess::Accept() { return absl::HexStringToBytes(Ask("accept")); }
void PeerProcess::Connect(const std::string& address) {
  Ask(absl::StrCat("connect ", absl::BytesToHexString(address)));
}
void PeerProcess::Send(int first, int count, int64_t bytes) {
  Ask(absl::StrCat("send ", first, " ", count, " ", bytes));
}
void PeerProcess::Receive(int first, int count, int64_t bytes) {
  Ask(absl::StrCat("receive ", first, " ", count, " ", bytes));
}
void PeerProcess::AwaitEnded(int count) { Ask(absl::StrCat("await ", count)); }
bool PeerProcess::Holds(std::byte value) {
  return Ask(absl::StrCat("holds ", static_cast<int>(value))) == "yes";
}
void PeerProcess::Ping() { Ask("ping"); }

void PeerProcess::Stop() {
  kill(pid_, SIGSTOP);
  int status = 0;
  waitpid(pid_, &status, WUNTRACED);
}
void PeerProcess::Continue() { kill(pid_, SIGCONT); }
void PeerProcess::Kill() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

}  // namespace longhaul
