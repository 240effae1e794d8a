// How fast a link carries KV between two processes of this host. Prints one JSON object.
// tools/bench/transport.py runs it side by side with ucx_perftest, tools/bench/between_gpus.py
// between two GPUs.
//
//   transport_bench [--bytes=N] [--messages=N] [--window=N] [--pieces=N] [--buffers=N]
//                   [--memory=host|cuda] [--device=N] [--sender_device=N] [--kv_transport=ucx|nccl]
//                   [--segment_bytes=N] [--transports=LIST] [--network] [--nccl_blocks=N]
//                   [--spin_us=N] [--ucx_log=LEVEL]
// A message of `bytes` is cut into `pieces` that do not touch each other; `window` of them are
// under way at a time, out of and into `buffers` different places (1, as ucx_perftest does, stays
// in the cache).
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/runtime/thread_loop.h"
#include "kv_transfer/lane/lane_transport.h"
#include "kv_transfer/nccl/nccl_lane.h"
#include "kv_transfer/ucx/ucx_transport.h"
#include "tests/contract/piece_memory.h"

ABSL_FLAG(int64_t, bytes, 1 << 20, "Bytes of a message.");
ABSL_FLAG(int64_t, messages, 1000, "Messages that are timed; a tenth more come before.");
ABSL_FLAG(int64_t, window, 8, "Messages under way at a time.");
ABSL_FLAG(int64_t, pieces, 1, "Pieces of a message, on both sides.");
ABSL_FLAG(int64_t, buffers, 1, "Different places that messages are taken from and put to.");
ABSL_FLAG(std::string, memory, "host", "Where the messages lie on both sides: host or cuda.");
ABSL_FLAG(int, device, 0, "CUDA's number of the receiver's GPU.");
ABSL_FLAG(int, sender_device, 0, "CUDA's number of the sender's GPU.");
ABSL_FLAG(std::string, kv_transport, "ucx",
          "What carries the messages: ucx, or nccl between GPUs.");
ABSL_FLAG(int, nccl_blocks, longhaul::NcclOptions().blocks_max,
          "Blocks of a GPU that NCCL may take.");
ABSL_FLAG(int64_t, segment_bytes, 0, "UCX: the longest part that crosses at once; 0: the default.");
ABSL_FLAG(std::string, transports, "sysv,cma,self,tcp", "What UCX may use.");
ABSL_FLAG(bool, network, false, "As if the two processes were on different hosts.");
ABSL_FLAG(int64_t, spin_us, 50, "How long the transfer threads poll before they sleep.");
ABSL_FLAG(std::string, ucx_log, "fatal",
          "What UCX may print; info with UCX_PROTO_INFO=y: its paths.");
ABSL_FLAG(int, sender_fd, -1, "Internal: be the sender, with this control socket.");

extern char** environ;

namespace longhaul {
namespace {

void WriteAll(int fd, const std::string& bytes) {
  const auto size = static_cast<uint32_t>(bytes.size());
  LH_CHECK(write(fd, &size, sizeof(size)) == sizeof(size), "control socket");
  LH_CHECK(write(fd, bytes.data(), size) == static_cast<ssize_t>(size), "control socket");
}
std::string ReadAll(int fd) {
  uint32_t size = 0;
  LH_CHECK(read(fd, &size, sizeof(size)) == sizeof(size), "control socket");
  std::string bytes(size, '\0');
  LH_CHECK(read(fd, bytes.data(), size) == static_cast<ssize_t>(size), "control socket");
  return bytes;
}

absl::StatusOr<std::unique_ptr<WireTransport>> MakeTransport(KvMemory& memory) {
  const std::string name = absl::GetFlag(FLAGS_kv_transport);
  if (name == "nccl") {
    LH_ASSIGN_OR_RETURN(
        std::unique_ptr<LaneMaker> lanes,
        MakeNcclLanes({.memory = &memory, .blocks_max = absl::GetFlag(FLAGS_nccl_blocks)}));
    return LaneTransport::Make(std::move(lanes), "127.0.0.1");
  }
  LH_CHECK(name == "ucx", "--kv_transport is ucx or nccl");
  return UcxTransport::Make({.transports = absl::GetFlag(FLAGS_transports),
                             .network_only = absl::GetFlag(FLAGS_network),
                             .log_level = absl::GetFlag(FLAGS_ucx_log),
                             .memory = &memory,
                             .segment_bytes_max = absl::GetFlag(FLAGS_segment_bytes)});
}

// One end: keeps a window of operations going until all messages have passed.
class End {
 public:
  explicit End(bool sends)
      : sends_(sends),
        warm_up_(absl::GetFlag(FLAGS_messages) / 10 + 1),
        messages_(absl::GetFlag(FLAGS_messages) + warm_up_),
        memory_(OpenMemory(absl::GetFlag(sends ? FLAGS_sender_device : FLAGS_device))),
        transport_(OpenTransport(memory_->memory())),
        loop_({.name = "transfer", .spin_us = absl::GetFlag(FLAGS_spin_us)}, transport_.get()) {
    const int64_t bytes = place_bytes_ * absl::GetFlag(FLAGS_buffers);
    places_ = memory_->Filled(std::max(bytes, PieceMemory::kSlabBytes), std::byte{1});
  }

  std::string Accept() {
    std::string address;
    OnLoop([&] {
      auto accepted = transport_->Accept();
      LH_CHECK(accepted.ok(), accepted.status().ToString());
      link_ = std::move(accepted->link);
      address = accepted->address;
    });
    return address;
  }
  void Connect(const std::string& address) {
    OnLoop([&] { link_ = *transport_->Connect(address); });
  }
  void Run() {
    loop_.Post([this] {
      for (int64_t i = 0; i < absl::GetFlag(FLAGS_window); ++i) StartNext();
    });
    finished_.WaitForNotification();
  }
  std::string Report() const {
    const double seconds = static_cast<double>(ended_us_ - began_us_) / 1e6;
    const double bytes =
        static_cast<double>(absl::GetFlag(FLAGS_bytes)) * static_cast<double>(messages_ - warm_up_);
    return absl::StrCat("{\"path\": \"", link_->path(),
                        "\", \"bytes\": ", absl::GetFlag(FLAGS_bytes),
                        ", \"pieces\": ", absl::GetFlag(FLAGS_pieces),
                        ", \"gb_per_s\": ", bytes / seconds / 1e9, "}");
  }
  void Close() {
    OnLoop([this] { link_.reset(); });
  }

 private:
  static std::unique_ptr<PieceMemory> OpenMemory(int device) {
    const bool cuda = absl::GetFlag(FLAGS_memory) == "cuda";
    auto memory = PieceMemory::Open(cuda ? MemoryKind::kCuda : MemoryKind::kHost, device);
    LH_CHECK(memory.ok(), memory.status().ToString());
    return *std::move(memory);
  }
  static std::unique_ptr<WireTransport> OpenTransport(KvMemory& memory) {
    auto transport = MakeTransport(memory);
    LH_CHECK(transport.ok(), transport.status().ToString());
    return *std::move(transport);
  }

  void OnLoop(absl::FunctionRef<void()> body) {
    absl::Notification done;
    loop_.Post([&] {
      body();
      done.Notify();
    });
    done.WaitForNotification();
  }

  template <typename Piece>
  std::vector<Piece> Pieces(int64_t tag) {
    const int64_t bytes = absl::GetFlag(FLAGS_bytes);
    const int64_t count = absl::GetFlag(FLAGS_pieces);
    std::byte* const buffer = places_->data() + tag % absl::GetFlag(FLAGS_buffers) * place_bytes_;
    if (count == 1) return {Piece{buffer, bytes}};
    std::vector<Piece> pieces;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = bytes * i / count;
      pieces.push_back({buffer + 2 * begin, bytes * (i + 1) / count - begin});
    }
    return pieces;
  }

  void StartNext() {
    if (started_ == messages_) return;
    const int64_t tag = started_++;
    const auto done = [this](absl::Status status) {
      LH_CHECK(status.ok(), status.ToString());
      if (++ended_ == warm_up_) began_us_ = loop_.NowUs();
      if (ended_ == messages_) {
        ended_us_ = loop_.NowUs();
        finished_.Notify();
      }
      StartNext();
    };
    if (sends_) {
      link_->Send(tag, Pieces<SendPiece>(tag), done);
    } else {
      link_->Receive(tag, Pieces<ReceivePiece>(tag), done);
    }
  }

  const bool sends_;
  const int64_t warm_up_;
  const int64_t messages_;
  const std::unique_ptr<PieceMemory> memory_;
  const int64_t place_bytes_ =
      absl::GetFlag(FLAGS_bytes) * (absl::GetFlag(FLAGS_pieces) > 1 ? 2 : 1);
  std::unique_ptr<DeviceBuffer> places_;  // one allocation, as a pool of KV is
  const std::unique_ptr<WireTransport> transport_;
  ThreadLoop loop_;
  std::unique_ptr<Link> link_;
  absl::Notification finished_;
  int64_t started_ = 0;
  int64_t ended_ = 0;
  int64_t began_us_ = 0;
  int64_t ended_us_ = 0;
};

int RunSender(int fd) {
  End sender(true);
  sender.Connect(ReadAll(fd));
  sender.Run();
  ReadAll(fd);  // the receiver has everything
  sender.Close();
  return 0;
}

int RunReceiver(int argc, char** argv) {
  int fds[2];
  LH_CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0, "socketpair");
  std::string sender_flag = absl::StrCat("--sender_fd=", fds[1]);
  std::vector<char*> arguments(argv, argv + argc);
  arguments.push_back(sender_flag.data());
  arguments.push_back(nullptr);
  pid_t sender = -1;
  LH_CHECK(posix_spawn(&sender, "/proc/self/exe", nullptr, nullptr, arguments.data(), environ) == 0,
           "posix_spawn");
  End receiver(false);
  WriteAll(fds[0], receiver.Accept());
  receiver.Run();
  WriteAll(fds[0], "done");
  std::puts(receiver.Report().c_str());
  receiver.Close();
  waitpid(sender, nullptr, 0);
  return 0;
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const int sender_fd = absl::GetFlag(FLAGS_sender_fd);
  return sender_fd >= 0 ? longhaul::RunSender(sender_fd) : longhaul::RunReceiver(argc, argv);
}
