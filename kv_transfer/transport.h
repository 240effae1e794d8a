// Transport and Link: the door to the wire that KV caches cross. Two-sided and tagged: the receiver says where bytes
// land before they may land, so a late sender can never write into memory that was given away.
//
// Threads: all methods are called on the transfer Loop that the transport was made with, and every callback comes
// there, never from inside the call that started the operation.
//
// What a Link promises, whatever the wire does (the contract suite in tests/contract proves it for every maker):
//   * `done` comes exactly once for every Send and Receive, also after Cancel and Close.
//   * After a Receive's `done`, nothing writes its pieces any more. That callback is the only proof of quiescence: a
//     block may be reused after it and never before.
//   * A Send whose tag no Receive was posted for never touches the receiver's blocks; its bytes are drained.
//   * Messages of different tags may complete in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longhaul {

// Names one message between the two ends of a link. The receiver chooses tags and never uses one twice.
using TransferTag = uint64_t;

struct SendPiece {
  const std::byte* data = nullptr;
  int64_t bytes = 0;
};
struct ReceivePiece {
  std::byte* data = nullptr;
  int64_t bytes = 0;
};

// OK; Cancelled after Cancel or Close; Unavailable when the peer is gone; DataLoss when the sizes differ.
using TransferDone = absl::AnyInvocable<void(absl::Status)>;

class Link {
 public:
  // Closes first when that was not done; callbacks not yet run are run before the destructor returns.
  virtual ~Link() = default;

  // Sends the pieces as one message. They stay unchanged and alive until `done`.
  virtual void Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) = 0;

  // Takes the message `tag` into the pieces. The sum of bytes must equal the sender's.
  virtual void Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) = 0;

  // Asks that the operation end soon. One that is already moving bytes may still end with OK.
  virtual void Cancel(TransferTag tag) = 0;

  // Ends the link: every outstanding operation is ended, the wire is quiesced, callbacks follow. Idempotent. May take
  // as long as the message that is moving.
  virtual void Close() = 0;

  // The path the bytes take ("memory", "posix+cma", "tcp"), for logs, metrics and warnings.
  virtual std::string path() const = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;  // all its links must be gone

  virtual std::string name() const = 0;  // "in-process", "ucx", "simulated"

  // The receiving end: a link with an address of its own, to be given to exactly one sender.
  struct Accepted {
    std::unique_ptr<Link> link;
    std::string address;  // opaque bytes
  };
  virtual absl::StatusOr<Accepted> Accept() = 0;

  // The sending end. InvalidArgument for bytes that are no address, Unavailable when nobody answers. May return
  // before the peer has answered; then a failure shows in the operations.
  virtual absl::StatusOr<std::unique_ptr<Link>> Connect(const std::string& address) = 0;
};

}  // namespace longhaul
