// UcxSender: the connecting end of a UCX link. Internal to the UCX maker.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "kv_transfer/piece_cursor.h"
#include "kv_transfer/ucx/ucx_link.h"

namespace longhaul {

class UcxSender final : public UcxLink {
 public:
  // Connects `worker` to the other end.
  static absl::StatusOr<std::unique_ptr<Link>> Make(UcxTransport* transport,
                                                    std::unique_ptr<UcxWorker> worker,
                                                    const UcxAddress& peer, bool network);
  ~UcxSender() override;

  void Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) override;
  void Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) override;
  void Cancel(TransferTag tag) override;
  bool outstanding() const override { return !messages_.empty(); }
  std::string path() const override;

 private:
  struct Message {
    Message(std::vector<SendPiece> from, TransferDone end)
        : pieces(std::move(from)),
          cursor(pieces),
          bytes(TotalBytes(pieces)),
          done(std::move(end)) {}
    const std::vector<SendPiece> pieces;
    SendCursor cursor;
    const int64_t bytes;
    int64_t posted_bytes = 0;
    bool begun = false;  // a message of no bytes is one segment
    int in_flight = 0;
    bool cancelled = false;
    bool queued = false;  // in to_pump_
    absl::Status status;
    TransferDone done;
  };
  // What is gathered of the pieces before it is sent; null: the piece is sent from where it lies.
  UcxStaging::Buffer Gather(SendCursor& cursor, int64_t& bytes);
  // One active message on its way; UCX reads it until its callback.
  struct Segment {
    UcxSender* sender = nullptr;
    bool note = false;  // of no message
    UcxSegmentHeader header;
    UcxStaging::Buffer staging;
    std::string text;
  };

  UcxSender(UcxTransport* transport, std::unique_ptr<UcxWorker> worker, uint64_t link_id,
            int64_t segment_bytes_max, bool network);

  void Pump() override;
  Rest Quiesce() override;
  void EndAll(const absl::Status& status) override;

  void PumpMessage(TransferTag tag);
  void Greet();
  void PostNextSegment(TransferTag tag, Message& message);
  void Post(UcxMessageId id, std::unique_ptr<Segment> segment, MemoryKind kind, const void* data,
            int64_t bytes);
  void SegmentEnded(Segment* segment, ucs_status_t status);
  void Queue(TransferTag tag);
  void SendNote(UcxMessageId id, TransferTag tag, std::string text);
  std::string ReadPath() const;
  void WarnOfStaging() const;

  const int64_t segment_bytes_max_;
  const bool on_device_;
  const int64_t direct_bytes_min_;
  const bool network_;
  ucp_ep_h endpoint_ = nullptr;
  mutable std::string path_;  // empty until the connection is made
  bool path_told_ = false;
  UcxStaging staging_;
  absl::flat_hash_map<TransferTag, std::unique_ptr<Message>> messages_;
  absl::flat_hash_set<Segment*> segments_;  // in flight, owned
  std::deque<TransferTag> to_pump_;
};

}  // namespace longhaul
