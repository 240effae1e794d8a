#include "kv_transfer/self_test_process.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/status.h"
#include "common/runtime/run_and_wait.h"

extern char** environ;

namespace longhaul {
namespace {

constexpr int kWindow = 4;
// A process with a GPU needs seconds to start on a busy machine.
constexpr int kStartMs = 60'000;

// What the sending process is told.
struct Task {
  int64_t message_bytes = 0;
  int64_t messages = 0;
  uint64_t address_bytes = 0;
};

bool WriteAll(int fd, const void* data, size_t bytes) {
  return send(fd, data, bytes, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes);
}
// False when the other side has gone.
bool ReadAll(int fd, void* data, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t step = read(fd, static_cast<char*>(data) + done, bytes - done);
    if (step <= 0) return false;
    done += static_cast<size_t>(step);
  }
  return true;
}

// The other process: ended with the object.
class SendingProcess {
 public:
  explicit SendingProcess(const std::vector<std::string>& arguments) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return;
    control_fd_ = fds[0];
    const int its_fd = dup(fds[1]);  // without close-on-exec
    close(fds[1]);
    std::vector<std::string> words = {"self_test"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    words.push_back(absl::StrCat("--self_test_fd=", its_fd));
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    if (posix_spawn(&pid_, "/proc/self/exe", nullptr, nullptr, pointers.data(), environ) != 0) {
      pid_ = -1;
    }
    close(its_fd);
  }
  ~SendingProcess() {
    if (control_fd_ >= 0) close(control_fd_);
    if (pid_ < 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  SendingProcess(const SendingProcess&) = delete;
  SendingProcess& operator=(const SendingProcess&) = delete;

  // OK when it is ready to send.
  absl::Status Start(const Task& task, const std::string& address) {
    if (pid_ < 0) return absl::UnavailableError("no second process could be started");
    if (!WriteAll(control_fd_, &task, sizeof(task)) ||
        !WriteAll(control_fd_, address.data(), address.size())) {
      return absl::UnavailableError("the second process ended at once");
    }
    pollfd answer = {control_fd_, POLLIN, 0};
    if (poll(&answer, 1, kStartMs) <= 0) {
      return absl::DeadlineExceededError("the second process did not start in time");
    }
    uint64_t bytes = 0;
    if (!ReadAll(control_fd_, &bytes, sizeof(bytes)) || bytes > 4096) {
      return absl::UnavailableError("the second process ended before it could send");
    }
    std::string reason(bytes, '\0');
    ReadAll(control_fd_, reason.data(), bytes);
    if (reason.empty()) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("the second process cannot send: ", reason));
  }

 private:
  pid_t pid_ = -1;
  int control_fd_ = -1;
};

std::vector<std::byte> Pattern(int64_t bytes) {
  std::vector<std::byte> pattern(bytes);
  for (int64_t i = 0; i < bytes; ++i) pattern[i] = static_cast<std::byte>(i * 131 >> 3);
  return pattern;
}

absl::StatusOr<LinkSpeed> MeasureWithProcess(Loop* loop, Transport* transport, KvMemory* memory,
                                             const SelfTestOptions& options,
                                             const std::vector<std::string>& arguments) {
  const int64_t messages = options.messages + kWindow;
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceBuffer> target,
                      memory->Allocate(options.message_bytes));
  std::unique_ptr<Link> link;
  absl::StatusOr<std::string> address = std::string();
  RunAndWait(*loop, [&] {
    auto accepted = transport->Accept();
    if (!accepted.ok()) {
      address = accepted.status();
      return;
    }
    link = std::move(accepted->link);
    address = accepted->address;
  });
  LH_RETURN_IF_ERROR(address.status());

  // The rest is the loop's until the link is gone.
  int64_t started = 0;
  int64_t landed = 0;
  int64_t began_us = 0;
  int64_t ended_us = 0;
  absl::Status failure;
  absl::Notification over;
  std::function<void()> receive_next = [&] {
    if (started == messages || !failure.ok()) return;
    link->Receive(started++, {{target->data(), options.message_bytes}}, [&](absl::Status status) {
      if (!failure.ok()) return;
      if (!status.ok()) failure = std::move(status);
      // The first window also makes the connection, so the clock starts when it has landed.
      if (++landed == kWindow) began_us = loop->NowUs();
      ended_us = loop->NowUs();
      if (landed == messages || !failure.ok()) return over.Notify();
      receive_next();
    });
  };
  RunAndWait(*loop, [&] {
    for (int i = 0; i < kWindow; ++i) receive_next();
  });
  absl::Status outcome;
  std::string path;
  {
    SendingProcess sender(arguments);
    outcome = sender.Start({options.message_bytes, messages, address->size()}, *address);
    if (outcome.ok() &&
        !over.WaitForNotificationWithTimeout(absl::Microseconds(options.timeout_us))) {
      outcome = absl::DeadlineExceededError(absl::StrCat("not all of ", messages, " messages of ",
                                                         options.message_bytes,
                                                         " bytes crossed the link in time"));
    }
    RunAndWait(*loop, [&] {
      path = link->path();
      if (outcome.ok()) outcome = failure;
      failure = absl::CancelledError("over");  // what ends now says nothing
      link.reset();
    });
  }
  LH_RETURN_IF_ERROR(outcome);
  std::vector<std::byte> received(options.message_bytes);
  memory->Copy({{received.data(), target->data(), options.message_bytes}});
  if (received != Pattern(options.message_bytes)) {
    return absl::DataLossError("the link changed bytes on the way");
  }
  const double seconds = static_cast<double>(std::max<int64_t>(ended_us - began_us, 1)) / 1e6;
  return LinkSpeed{path, static_cast<double>(options.message_bytes) * options.messages / seconds};
}

}  // namespace

absl::StatusOr<LinkSpeed> RunSelfTestWithProcess(Loop* loop, Transport* transport, KvMemory* memory,
                                                 SelfTestOptions options,
                                                 const std::vector<std::string>& arguments) {
  absl::StatusOr<LinkSpeed> speed = MeasureWithProcess(loop, transport, memory, options, arguments);
  ReportLinkSpeed(transport->name(), options, memory->kind(), speed);
  return speed;
}

absl::Status ServeSelfTest(int control_fd, Loop* loop, Transport* transport, KvMemory* memory) {
  Task task;
  if (!ReadAll(control_fd, &task, sizeof(task)) || task.message_bytes <= 0 ||
      task.address_bytes > 65536) {
    return absl::InvalidArgumentError("nobody asked for a self-test");
  }
  std::string address(task.address_bytes, '\0');
  ReadAll(control_fd, address.data(), address.size());
  auto source = memory->Allocate(task.message_bytes);
  std::unique_ptr<Link> link;
  absl::Status status = source.status();
  if (status.ok()) {
    const std::vector<std::byte> pattern = Pattern(task.message_bytes);
    memory->Copy({{(*source)->data(), pattern.data(), task.message_bytes}});
    RunAndWait(*loop, [&] {
      auto connected = transport->Connect(address);
      status = connected.status();
      if (connected.ok()) link = *std::move(connected);
    });
  }
  if (!status.ok()) {
    RefuseSelfTest(control_fd, status);
    return status;
  }
  const uint64_t no_reason = 0;
  WriteAll(control_fd, &no_reason, sizeof(no_reason));
  int64_t started = 0;
  bool closing = false;
  std::function<void()> send_next = [&] {
    if (started == task.messages || closing) return;
    link->Send(started++, {{(*source)->data(), task.message_bytes}},
               [&](absl::Status) { send_next(); });
  };
  RunAndWait(*loop, [&] {
    for (int i = 0; i < kWindow; ++i) send_next();
  });
  char none = 0;
  ReadAll(control_fd, &none, 1);  // until the other side has closed
  RunAndWait(*loop, [&] {
    closing = true;
    link.reset();
  });
  return absl::OkStatus();
}

void RefuseSelfTest(int control_fd, const absl::Status& reason) {
  const std::string text(reason.message().substr(0, 1000));
  const uint64_t bytes = text.size();
  WriteAll(control_fd, &bytes, sizeof(bytes));
  WriteAll(control_fd, text.data(), text.size());
}

}  // namespace longhaul
