// The sending end of a lane link. A message moves once its Receive is known, in parts of some MiB,
// message after message in the order in which they found their Receives; each part is announced on
// the connection just before it is queued on the lane, so the receiver queues its own side in the
// same order.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kv_transfer/ended_tags.h"
#include "kv_transfer/lane/lane_link.h"
#include "kv_transfer/piece_cursor.h"

namespace longhaul {

class LaneSender final : public LaneLink {
 public:
  LaneSender(LaneTransport* transport, std::unique_ptr<Lane> lane,
             std::unique_ptr<ControlConnection> connection, uint64_t secret);
  ~LaneSender() override { Shutdown(); }

  void Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) override;
  void Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) override;
  void Cancel(TransferTag tag) override;

 private:
  struct Message {
    Message(std::vector<SendPiece> pieces, TransferDone done)
        : pieces(std::move(pieces)), bytes(TotalBytes(this->pieces)), done(std::move(done)) {}

    const std::vector<SendPiece> pieces;
    const int64_t bytes;
    TransferDone done;
    std::vector<ReceivePiece> wanted;  // the receiver's cut, without places
    SendCursor from{pieces};
    ReceiveCursor to{wanted};
    bool matched = false;
    int64_t moving_bytes = 0;  // on the lane now
    // How it ends once nothing of it is on the lane; without, there is more to queue.
    std::optional<absl::Status> outcome;
  };
  using Messages = absl::flat_hash_map<TransferTag, std::unique_ptr<Message>>;

  absl::Status Take(LaneMessage message) override;
  void Ended(const LaneEvents::Event& event) override;
  void EndIdle() override;

  // The message has found its Receive.
  void Match(TransferTag tag, const std::vector<int64_t>& wanted);
  // Nothing more of the message is queued: it ends now, or with its last part on the lane.
  void Stop(TransferTag tag, absl::Status outcome);
  void FillLane();
  void QueuePart(TransferTag tag, Message& message);

  Messages messages_;
  std::deque<TransferTag> matched_;                               // in order of their matches
  absl::flat_hash_map<TransferTag, std::vector<int64_t>> wants_;  // whose Sends are still to come
  EndedTags forgotten_;                                           // a Send of these is dropped
  int64_t moving_bytes_ = 0;
};

}  // namespace longhaul
