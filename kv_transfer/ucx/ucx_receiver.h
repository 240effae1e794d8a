// UcxReceiver: the accepting end of a UCX link. Internal to the UCX maker.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "kv_transfer/ended_tags.h"
#include "kv_transfer/piece_cursor.h"
#include "kv_transfer/ucx/ucx_link.h"

namespace longhaul {

class UcxReceiver final : public UcxLink {
 public:
  UcxReceiver(UcxTransport* transport, std::unique_ptr<UcxWorker> worker, uint64_t link_id);
  ~UcxReceiver() override;

  void Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) override;
  void Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) override;
  void Cancel(TransferTag tag) override;
  bool outstanding() const override { return !messages_.empty(); }
  std::string path() const override { return path_; }

 private:
  struct Message {
    Message(std::vector<ReceivePiece> to, TransferDone end)
        : pieces(std::move(to)), cursor(pieces), bytes(TotalBytes(pieces)), done(std::move(end)) {}
    const std::vector<ReceivePiece> pieces;
    ReceiveCursor cursor;  // stands at cursor_offset
    int64_t cursor_offset = 0;
    const int64_t bytes;
    int64_t received_bytes = 0;
    bool begun = false;
    int in_flight = 0;
    absl::Status status;  // not OK: the message has failed or was cancelled, its further segments
                          // are dropped
    bool queued = false;  // in to_finish_
    TransferDone done;
  };
  // A segment that has arrived: its bytes, or what UCX needs to fetch them from the sender.
  struct Arrival {
    UcxSegmentHeader header;
    int64_t bytes = 0;
    void* descriptor = nullptr;
    std::vector<std::byte> data;
  };
  // A segment that is being fetched.
  struct Fetch {
    UcxReceiver* receiver = nullptr;
    UcxSegmentHeader header;
    int64_t bytes = 0;
    UcxStaging::Buffer staging;
  };

  void Pump() override;
  Rest Quiesce() override;
  void EndAll(const absl::Status& status) override;

  void SetHandler(UcxMessageId id, ucp_am_recv_callback_t callback, void* arg);
  ucs_status_t SegmentArrived(const UcxSegmentHeader& header, void* data, int64_t bytes, bool here);
  void Hold(Arrival arrival);
  void DropHeld(TransferTag tag);
  void Drop(const Arrival& arrival);
  // Whether the message can take the segment; fails the message when it cannot.
  bool Fits(Message& message, const UcxSegmentHeader& header, int64_t bytes);
  void Take(Message& message, Arrival arrival);
  void TakeBytes(Message& message, const UcxSegmentHeader& header, const std::byte* data,
                 int64_t bytes);
  bool MayFetch();
  // False when all staging buffers are out.
  bool StartFetch(Arrival& arrival);
  void FetchEnded(Fetch* fetch, ucs_status_t status);
  ReceiveCursor& CursorAt(Message& message, int64_t offset_bytes);
  void QueueFinish(TransferTag tag, Message& message);
  void FailMessage(TransferTag tag, Message& message, absl::Status status);

  std::string path_ = "ucx";
  bool closing_ = false;
  // UCX has answered the sender that connected. Before that nothing is fetched over the network:
  // UCX 1.13 aborts the process when it has to drop its own answer.
  bool answered_ = false;
  ucp_ep_h reply_endpoint_ = nullptr;  // to a sender on the network, once it is known
  // A fetch has failed: UCX has freed its endpoint to the sender, so no descriptor may be touched
  // any more.
  absl::Status broken_;
  bool shared_memory_ = false;  // the sender has said so
  UcxStaging staging_;
  absl::flat_hash_map<TransferTag, std::unique_ptr<Message>> messages_;
  std::deque<Arrival> to_fetch_;
  absl::flat_hash_set<Fetch*> fetches_;  // in flight, owned
  std::deque<TransferTag> to_finish_;
  // Messages that came before their receive, and the order in which they came (it may name some
  // that have left).
  absl::flat_hash_map<TransferTag, std::vector<Arrival>> held_;
  std::deque<TransferTag> held_order_;
  int64_t held_bytes_ = 0;
  EndedTags ended_;
  EndedTags dropped_;
};

}  // namespace longhaul
