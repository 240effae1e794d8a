// The receiving end of a lane link. It tells the sender of each Receive, and queues on the lane
// what the sender announces; parts of messages whose Receive has ended are taken and forgotten, so
// nothing of theirs is written.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "kv_transfer/ended_tags.h"
#include "kv_transfer/lane/lane_link.h"
#include "kv_transfer/piece_cursor.h"

namespace longhaul {

class LaneReceiver final : public LaneLink {
 public:
  LaneReceiver(LaneTransport* transport, std::unique_ptr<Lane> lane)
      : LaneLink(transport, std::move(lane)) {}
  ~LaneReceiver() override { Shutdown(); }

  void Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) override;
  void Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) override;
  void Cancel(TransferTag tag) override;

  // The sender is there.
  void Meet(std::unique_ptr<ControlConnection> connection) { Attach(std::move(connection)); }

 private:
  struct Message {
    Message(std::vector<ReceivePiece> pieces, TransferDone done)
        : pieces(std::move(pieces)), done(std::move(done)) {}

    const std::vector<ReceivePiece> pieces;
    TransferDone done;
    ReceiveCursor to{pieces};
    int64_t moving_bytes = 0;  // on the lane now
    // How it ends once nothing of it is on the lane; without, there is more to come.
    std::optional<absl::Status> outcome;
  };
  using Messages = absl::flat_hash_map<TransferTag, std::unique_ptr<Message>>;

  absl::Status Take(LaneMessage message) override;
  void Ended(const LaneEvents::Event& event) override;
  void EndIdle() override;

  // A message waits at the sender for a Receive that may not have been posted.
  void TakeOffer(TransferTag tag);
  absl::Status TakePart(TransferTag tag, std::vector<int64_t> sizes);
  // Nothing more is written for the Receive: it ends now, or with its last part on the lane.
  void Stop(TransferTag tag, absl::Status outcome);

  Messages messages_;
  std::deque<TransferTag> unexpected_;  // in order of arrival; may name some that have left
  absl::flat_hash_set<TransferTag> unexpected_tags_;
  EndedTags ended_;    // the sender has been told, or need not be
  EndedTags dropped_;  // a Receive of these has lost its message
};

}  // namespace longhaul
