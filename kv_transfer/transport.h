// Transport and Link: the door to the wire that KV caches cross. Two-sided and tagged: the receiver
// says where bytes land before they may land, so a late sender can never write into memory that was
// given away.
//
// A link has a direction: the accepting end receives, the connecting end sends. The other way round
// is a bug of the caller and ends the process.
//
// Threads: all methods are called on the transfer Loop that the transport was made for, and every
// callback comes there, never from inside the call that started the operation. A callback may call
// any method of any link, but must not destroy the link that it belongs to (post that to the loop).
//
// What a Link promises, whatever the wire does (the contract suite in tests/contract proves it for
// every maker):
//   * `done` comes exactly once for every Send and Receive, also after Cancel, Close and
//   destruction.
//   * After a Receive's `done`, nothing writes its pieces any more. That callback is the only proof
//   of quiescence: a
//     block may be reused after it and never before.
//   * A Send whose tag no Receive was posted for never touches the receiver's blocks. It waits for
//   its Receive; when
//     that Receive had been cancelled or had failed before, or when too many such sends wait
//     (kUnexpectedMax), its bytes are dropped.
//   * Messages of different tags may complete in any order.
// What it does not promise: to notice that the peer died, stopped or was cut off. Some wires tell,
// shared memory never does. Liveness is the control stream's business: it learns, and calls Close,
// which always ends everything.
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

// Names one message between the two ends of a link, all 64 bits free to use. The receiver chooses
// tags and never uses one twice in the life of a link.
using TransferTag = uint64_t;

// Pieces are memory that the transport's maker was told of, host memory for most; those of no bytes
// are allowed, and so is a message of none.
struct SendPiece {
  const std::byte* data = nullptr;
  int64_t bytes = 0;
};
struct ReceivePiece {
  std::byte* data = nullptr;
  int64_t bytes = 0;
};

// OK: a Receive has all its bytes; a Send's pieces may be reused (they may have been dropped at the
// other end: only the receiver knows). Cancelled after Cancel or Close of this end; Unavailable
// when the wire says that the peer is gone; DataLoss for a Receive whose size differs from the
// Send's, and for one whose message was dropped as unexpected before it was posted.
using TransferDone = absl::AnyInvocable<void(absl::Status)>;

class Link {
 public:
  // Messages that may wait at the receiving end of a link for their Receive; the oldest is dropped
  // beyond that.
  static constexpr int kUnexpectedMax = 4096;

  // Closes first when that was not done; callbacks not yet run are run before the destructor
  // returns.
  virtual ~Link() = default;

  // Sends the pieces as one message. They stay unchanged and alive until `done`.
  virtual void Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) = 0;

  // Takes the message `tag` into the pieces, whose sum of bytes must equal the sender's; how either
  // side cuts them does not matter. What lies in the pieces after a `done` that is not OK is
  // undefined.
  virtual void Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) = 0;

  // Asks that this end's operation end soon; unknown tags are ignored. One that is moving bytes
  // ends when the part on the wire (some MiB) has moved, or with OK when that was the last; if the
  // peer has stopped meanwhile, only Close ends it. The other end's operation is not ended by this.
  virtual void Cancel(TransferTag tag) = 0;

  // Ends the link: every outstanding operation of this end is ended, the wire is quiesced,
  // callbacks follow. Idempotent. Never waits for the peer; may take as long as the part of a
  // message that is moving. Operations started after it end with Cancelled. The other end may or
  // may not notice.
  virtual void Close() = 0;

  // The path the bytes take ("memory", "sysv+cma", "tcp"), for logs, metrics and warnings. May say
  // more once bytes have moved.
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

  // The sending end. InvalidArgument for bytes that are no address, Unavailable when nobody
  // answers. May return before the peer has answered; then a failure shows in the operations.
  virtual absl::StatusOr<std::unique_ptr<Link>> Connect(const std::string& address) = 0;
};

}  // namespace longhaul
