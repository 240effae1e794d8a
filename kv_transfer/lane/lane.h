// Lane: the door to a wire that has no tags and no way to take anything back: what one end sends
// the other receives, in the same order and cut into the same pieces, or both fail. LaneTransport
// makes links of it. Makers: NCCL; the tests have one of plain memory.
//
// Threads: one caller at a time; each `done` comes on a thread of the lane's own and must not call
// it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kv_transfer/transport.h"

namespace longhaul {

// OK, Cancelled after Abort, or Unavailable when the wire broke, after which everything fails.
using LaneDone = absl::AnyInvocable<void(absl::Status)>;

class Lane {
 public:
  // Aborts, and waits until every `done` has come.
  virtual ~Lane() = default;

  // The other end is there or on its way: join it. Before that nothing waits for it.
  virtual void Join() = 0;

  // One message each, queued. `done` comes once, when the pieces are no longer read or written. No
  // piece is empty.
  virtual void Send(std::vector<SendPiece> pieces, LaneDone done) = 0;
  virtual void Receive(std::vector<ReceivePiece> pieces, LaneDone done) = 0;
  // Receives pieces of these sizes and forgets them.
  virtual void Discard(std::vector<int64_t> sizes, LaneDone done) = 0;

  // Ends everything, also against a peer that is gone or stands still. Returns at once; idempotent.
  virtual void Abort() = 0;

  virtual std::string path() const = 0;  // as Link::path
};

class LaneMaker {
 public:
  virtual ~LaneMaker() = default;  // after its lanes
  virtual std::string name() const = 0;

  // The receiving end, and what the sending end needs to know of it.
  struct Offered {
    std::unique_ptr<Lane> lane;
    std::string address;
  };
  virtual absl::StatusOr<Offered> Offer() = 0;
  // The sending end. InvalidArgument for bytes that are no address.
  virtual absl::StatusOr<std::unique_ptr<Lane>> Take(const std::string& address) = 0;
};

}  // namespace longhaul
