// SimulatedWire: the state that the two ends of one simulated link share. Internal to the simulated
// maker.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "kv_transfer/completions.h"
#include "kv_transfer/ended_tags.h"
#include "kv_transfer/piece_cursor.h"
#include "kv_transfer/simulated_network.h"

namespace longhaul {

class SimulatedWire final : public std::enable_shared_from_this<SimulatedWire> {
 public:
  enum End { kReceiver = 0, kSender = 1 };
  using Process = SimulatedNetwork::Process;

  SimulatedWire(SimulatedNetwork* network, std::shared_ptr<Process> receiver);

  const Process* process(End end) const { return processes_[end].get(); }
  bool closed(End end) const { return closed_[end]; }
  void Connect(std::shared_ptr<Process> sender);

  void Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done);
  void Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done);
  void Cancel(End end, TransferTag tag);
  void Close(End end);
  // Ends every operation of this end now and runs its callbacks.
  void Destroy(End end);

  // The peer of a crashed or closed end notices, when this network lets it.
  void TellPeerOf(End gone);
  // Goes on with what waited for a partition or a stopped process to end.
  void Resume();

 private:
  struct SendOperation {
    std::vector<SendPiece> pieces;
    TransferDone done;
    uint64_t content = 0;  // a hash of the pieces as they were sent
    bool waiting = false;  // has arrived and found no receive
    bool cancelled = false;
  };
  struct ReceiveOperation {
    std::vector<ReceivePiece> pieces;
    TransferDone done;
    bool moving = false;
    bool cancelled = false;
  };
  // One message that is landing. Its own copy of the pieces: a mutant goes on after the operations
  // have ended.
  struct Move {
    Move(TransferTag tag, std::vector<SendPiece> from, std::vector<ReceivePiece> to)
        : tag(tag),
          from_pieces(std::move(from)),
          to_pieces(std::move(to)),
          from_cursor(from_pieces),
          to_cursor(to_pieces),
          left_bytes(TotalBytes(from_pieces)) {}
    const TransferTag tag;
    const std::vector<SendPiece> from_pieces;
    const std::vector<ReceivePiece> to_pieces;
    SendCursor from_cursor;
    ReceiveCursor to_cursor;
    int64_t left_bytes;
    int64_t moved_bytes = 0;
    bool from_gone =
        false;  // the sender's operation has ended: its memory holds something else by now
    bool to_ended = false;  // a mutant: writes on although the receiver was told that it is over
    bool stopped = false;
  };

  void Claim(const std::vector<ReceivePiece>& pieces);
  void Post(int64_t delay_us, absl::AnyInvocable<void()> step);
  bool Dead() const;
  void Arrive(TransferTag tag);
  void Lose(TransferTag tag);
  void DropBeyondBound();
  void Match(TransferTag tag);
  void ScheduleStep(std::shared_ptr<Move> move);
  void Step(const std::shared_ptr<Move>& move, int64_t bytes);
  void WriteOldPieces(TransferTag tag);
  void EndSend(TransferTag tag, absl::Status status);
  void EndReceive(TransferTag tag, absl::Status status, bool quiesce = true);
  void EndAll(End end, const absl::Status& status, bool quiesce = true);
  void StopMove(TransferTag tag);

  SimulatedNetwork* const network_;
  std::shared_ptr<Process> processes_[2];
  std::shared_ptr<Completions> completions_[2];
  bool closed_[2] = {false, false};
  bool peer_gone_[2] = {false, false};  // this end has noticed that the other is gone
  // Ordered, because ending them all must not depend on a hash.
  std::map<TransferTag, SendOperation> sends_;
  std::map<TransferTag, ReceiveOperation> receives_;
  std::map<TransferTag, std::shared_ptr<Move>> moves_;
  std::map<TransferTag, std::vector<ReceivePiece>> old_pieces_;  // kept for mutant_late_send_writes
  std::deque<TransferTag> waiting_order_;                        // may name some that have left
  int waiting_count_ = 0;
  EndedTags ended_;
  EndedTags dropped_;
  std::deque<absl::AnyInvocable<void()>> stalled_;
};

}  // namespace longhaul
