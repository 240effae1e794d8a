// UcxTransport: the maker of the Transport door over UCX. Between two processes of one host (same
// pid and ipc namespaces) bytes go through shared memory and cross-memory attach, elsewhere over
// TCP or RDMA; the sending end chooses when it connects.
//
// Every link has a ucp worker of its own. What was under way when a link ends is ended by us, after
// which nothing of UCX can write into our memory any more: between two processes of one host the
// receiver copies, so what it no longer asks for is not written; on the network whatever the peer
// still sends ends with the worker. What cannot be had: a receiver that is still reading while the
// *sender* closes may read blocks that the sender uses anew. It gets wrong bytes for a transfer
// that its sender has given up, which the digest and the cancel on the control stream reject.
//
// The pieces of all its links lie in one kind of memory, the host's or a CUDA device's; headers and
// notes are always the host's. Device memory between two processes of one host goes through
// cuda_ipc, where the receiver's device reads the sender's memory and the sender's process has no
// part in it, so all of the above holds. It needs a UCX built for CUDA (see docs/DEPENDENCIES.md).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/model/kv_memory.h"
#include "kv_transfer/ucx/ucx_address.h"
#include "kv_transfer/wire_transport.h"

// UCX's own names, so that this header needs none of its own.
struct ucp_context;

namespace longhaul {

class UcxBuffers;
class UcxLink;
struct UcxWorker;

struct UcxOptions {
  // What UCX may use, as in its UCX_TLS; for device memory its own are added. sysv rather than
  // posix: its segments die with the process and are never mistaken for another's. "ib" is ignored
  // where there is no RDMA card.
  std::string transports = "sysv,cma,self,tcp,ib";
  // Network interfaces to use, comma-separated ("eth0,mlx5_0:1"); empty leaves the choice to UCX.
  std::string network_devices = {};
  // Never shared memory: as if the peer were on another host.
  bool network_only = false;
  // What UCX itself may print: fatal, error, warn, info.
  std::string log_level = "fatal";
  // Where the pieces lie; outlives the transport.
  KvMemory* memory = &HostKvMemory();
  // The longest part of a message that crosses at once, after which a cancelled transfer stops. 0
  // chooses by the kind of memory.
  int64_t segment_bytes_max = 0;
};

class UcxTransport final : public WireTransport {
 public:
  // Errors: Unavailable or InvalidArgument with UCX's reason and the options to look at.
  static absl::StatusOr<std::unique_ptr<UcxTransport>> Make(UcxOptions options);
  // OK when the UCX that is linked carries a GPU's memory, else Unavailable with the way out.
  static absl::Status CarriesDeviceMemory();
  ~UcxTransport() override;

  std::string name() const override { return "ucx"; }
  absl::StatusOr<Accepted> Accept() override;
  absl::StatusOr<std::unique_ptr<Link>> Connect(const std::string& address) override;

  bool Poll() override;
  int WaitFd() const override { return epoll_fd_; }
  bool ArmWait() override;

  int64_t segment_bytes_max() const { return options_.segment_bytes_max; }
  // Which UCX runs and what it may use, for the start-up log: "UCX 1.13.1 (sysv,cma,self,tcp,ib)".
  std::string description() const;

 private:
  friend class UcxLink;

  UcxTransport(UcxOptions options, ucp_context* context, int epoll_fd, int timer_fd);
  absl::StatusOr<std::unique_ptr<UcxWorker>> MakeWorker();
  // Takes a worker that holds nothing of ours any more but must still finish its own business with
  // the peer.
  void Bury(std::unique_ptr<UcxWorker> worker);
  void PollBuried();
  void SetTimer(int64_t delay_ns);  // 0: none

  const UcxOptions options_;  // segment_bytes_max is never 0
  ucp_context* const context_;
  const int epoll_fd_;
  const int timer_fd_;  // wakes the loop when UCX cannot
  bool timer_set_ = false;
  const UcxAddress self_;
  const std::unique_ptr<UcxBuffers> buffers_;
  int fruitless_arms_ = 0;
  std::vector<UcxLink*> links_;  // null: gone during Poll
  std::vector<std::unique_ptr<UcxWorker>> buried_;
};

}  // namespace longhaul
