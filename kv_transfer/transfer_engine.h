// TransferEngine: a worker's Loop talks to the transfer thread through this. It owns the links; ids
// cross the threads, never pointers. Every method is called on the owner's Loop and every callback
// comes there; after the engine is gone none comes. Calls on one link keep their order, so a send
// may follow Connect at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "common/model/kv_memory.h"
#include "common/runtime/loop.h"
#include "kv_transfer/transport.h"

namespace longhaul {

using LinkId = uint64_t;

class TransferEngine {
 public:
  using Accepted = absl::AnyInvocable<void(absl::StatusOr<std::string> address)>;
  using Posted = absl::AnyInvocable<void(uint64_t digest)>;
  using SendDone = absl::AnyInvocable<void(absl::Status)>;
  using ReceiveDone = absl::AnyInvocable<void(absl::Status, uint64_t digest)>;
  using Closed = absl::AnyInvocable<void()>;

  // `transport` and `memory`, in which all pieces lie, are called on `transfer_loop` only. Both
  // loops, the transport and the memory outlive the engine and its last tasks.
  TransferEngine(Loop* loop, Loop* transfer_loop, Transport* transport,
                 KvMemory* memory = &HostKvMemory());
  // Closes every link, in the transfer thread.
  ~TransferEngine();

  LinkId Accept(Accepted accepted);
  // A failure to connect shows in the operations on the link.
  LinkId Connect(std::string address);

  // unit_bytes: what digests are taken of (MessageDigest).
  // `posted` comes when the message is on its way, with its digest; `done` when its memory may be
  // reused. Both always come; digest 0 when the link is not usable.
  void Send(LinkId link, TransferTag tag, std::vector<SendPiece> pieces, int64_t unit_bytes,
            Posted posted, SendDone done);
  void Receive(LinkId link, TransferTag tag, std::vector<ReceivePiece> pieces, int64_t unit_bytes,
               ReceiveDone done);
  void Cancel(LinkId link, TransferTag tag);

  // Fences the link: ends all its operations, then `closed`. The only way to quiesce operations
  // with a dead peer.
  void Close(LinkId link, Closed closed);

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
  LinkId next_link_ = 1;
};

}  // namespace longhaul
