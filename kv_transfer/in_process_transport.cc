#include "kv_transfer/in_process_transport.h"

#include <deque>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "kv_transfer/completions.h"
#include "kv_transfer/ended_tags.h"
#include "kv_transfer/piece_cursor.h"

namespace longhaul {
namespace {

struct PendingSend {
  std::vector<SendPiece> pieces;
  TransferDone done;
};
struct PendingReceive {
  std::vector<ReceivePiece> pieces;
  TransferDone done;
};

}  // namespace

// The state that the two ends of one link share.
struct InProcessWire {
  enum End { kReceiver = 0, kSender = 1 };

  explicit InProcessWire(KvMemory* memory) : memory(memory) {}

  KvMemory* const memory;
  absl::Mutex mutex;
  std::shared_ptr<Completions> completions[2] ABSL_GUARDED_BY(mutex);  // [End]; null: not there yet
  bool closed[2] ABSL_GUARDED_BY(mutex) = {false, false};
  absl::flat_hash_map<TransferTag, PendingReceive> receives ABSL_GUARDED_BY(mutex);
  absl::flat_hash_map<TransferTag, PendingSend> sends ABSL_GUARDED_BY(mutex);
  // Tags of `sends` in order of arrival; may name some that have left.
  std::deque<TransferTag> send_order ABSL_GUARDED_BY(mutex);
  EndedTags ended ABSL_GUARDED_BY(mutex);    // a send of these is dropped
  EndedTags dropped ABSL_GUARDED_BY(mutex);  // a receive of these has lost its message

  void Finish(End end, TransferDone done, absl::Status status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    Completions::Add(completions[end], std::move(done), std::move(status));
  }

  void Deliver(PendingSend send, PendingReceive receive) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const int64_t sent_bytes = TotalBytes(send.pieces);
    const int64_t wanted_bytes = TotalBytes(receive.pieces);
    absl::Status status;
    if (sent_bytes != wanted_bytes) {
      status = absl::DataLossError(absl::StrCat("the sender's message has ", sent_bytes,
                                                " bytes, the receiver expected ", wanted_bytes));
    } else {
      SendCursor from(send.pieces);
      ReceiveCursor to(receive.pieces);
      memory->Copy(PairedRuns(from, to, sent_bytes));
    }
    Finish(kSender, std::move(send.done), absl::OkStatus());
    Finish(kReceiver, std::move(receive.done), std::move(status));
  }

  void Send(TransferTag tag, PendingSend send) {
    absl::MutexLock lock(&mutex);
    if (closed[kSender]) {
      return Finish(kSender, std::move(send.done), absl::CancelledError("the link is closed"));
    }
    if (closed[kReceiver]) {
      return Finish(kSender, std::move(send.done),
                    absl::UnavailableError("the receiver closed the link"));
    }
    if (ended.Contains(tag)) return Finish(kSender, std::move(send.done), absl::OkStatus());
    if (auto receive = receives.extract(tag)) {
      return Deliver(std::move(send), std::move(receive.mapped()));
    }
    LH_CHECK(sends.emplace(tag, std::move(send)).second, absl::StrCat("tag ", tag, " sent twice"));
    send_order.push_back(tag);
    DropBeyondBound();
  }

  void DropBeyondBound() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    while (send_order.size() > Link::kUnexpectedMax) {
      const TransferTag oldest = send_order.front();
      send_order.pop_front();
      if (auto send = sends.extract(oldest)) {
        dropped.Add(oldest);
        Finish(kSender, std::move(send.mapped().done), absl::OkStatus());
      }
    }
  }

  void Receive(TransferTag tag, PendingReceive receive) {
    absl::MutexLock lock(&mutex);
    if (closed[kReceiver]) {
      return Finish(kReceiver, std::move(receive.done), absl::CancelledError("the link is closed"));
    }
    if (auto send = sends.extract(tag)) {
      return Deliver(std::move(send.mapped()), std::move(receive));
    }
    if (closed[kSender]) {
      return Finish(kReceiver, std::move(receive.done),
                    absl::UnavailableError("the sender closed the link"));
    }
    if (dropped.Contains(tag)) {
      return Finish(kReceiver, std::move(receive.done),
                    absl::DataLossError(absl::StrCat(
                        "the message came before its receive was posted and was dropped: more "
                        "than ",
                        Link::kUnexpectedMax, " waited")));
    }
    LH_CHECK(receives.emplace(tag, std::move(receive)).second,
             absl::StrCat("tag ", tag, " received twice"));
  }

  void Cancel(End end, TransferTag tag) {
    absl::MutexLock lock(&mutex);
    const absl::Status cancelled = absl::CancelledError("the transfer was cancelled");
    if (end == kSender) {
      if (auto send = sends.extract(tag)) Finish(end, std::move(send.mapped().done), cancelled);
    } else if (auto receive = receives.extract(tag)) {
      ended.Add(tag);
      Finish(end, std::move(receive.mapped().done), cancelled);
    }
  }

  void Close(End end) {
    absl::MutexLock lock(&mutex);
    if (closed[end]) return;
    closed[end] = true;
    const absl::Status mine = absl::CancelledError("the link was closed");
    const absl::Status theirs = absl::UnavailableError("the peer closed the link");
    for (auto& [tag, send] : std::exchange(sends, {})) {
      Finish(kSender, std::move(send.done), end == kSender ? mine : theirs);
    }
    send_order.clear();
    for (auto& [tag, receive] : std::exchange(receives, {})) {
      Finish(kReceiver, std::move(receive.done), end == kReceiver ? mine : theirs);
    }
  }
};

namespace {

class InProcessLink final : public Link {
 public:
  InProcessLink(std::shared_ptr<InProcessWire> wire, InProcessWire::End end,
                std::shared_ptr<Completions> completions)
      : wire_(std::move(wire)), end_(end), completions_(std::move(completions)) {}

  ~InProcessLink() override {
    Close();
    completions_->Run();
  }

  void Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) override {
    LH_CHECK(end_ == InProcessWire::kSender, "Send on the receiving end of a link");
    wire_->Send(tag, {std::move(pieces), std::move(done)});
  }

  void Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) override {
    LH_CHECK(end_ == InProcessWire::kReceiver, "Receive on the sending end of a link");
    wire_->Receive(tag, {std::move(pieces), std::move(done)});
  }

  void Cancel(TransferTag tag) override { wire_->Cancel(end_, tag); }
  void Close() override { wire_->Close(end_); }
  std::string path() const override { return "memory"; }

 private:
  const std::shared_ptr<InProcessWire> wire_;
  const InProcessWire::End end_;
  const std::shared_ptr<Completions> completions_;
};

constexpr char kAddressPrefix[] = "longhaul-in-process:";

}  // namespace

class InProcessNetwork {
 public:
  std::string Add(std::shared_ptr<InProcessWire> wire) {
    absl::MutexLock lock(&mutex_);
    const uint64_t id = next_id_++;
    // Wires of links that are gone are swept here: nobody tells when an address was never used.
    absl::erase_if(wires_, [](const auto& entry) { return entry.second.expired(); });
    wires_.emplace(id, std::move(wire));
    return absl::StrCat(kAddressPrefix, network_id_, ":", id);
  }

  absl::StatusOr<std::shared_ptr<InProcessWire>> Find(absl::string_view address) {
    const std::string prefix = absl::StrCat(kAddressPrefix, network_id_, ":");
    uint64_t id = 0;
    if (!absl::StartsWith(address, kAddressPrefix)) {
      return absl::InvalidArgumentError("these bytes are no in-process link address");
    }
    if (!absl::StartsWith(address, prefix)) {
      return absl::InvalidArgumentError("this in-process link address was made in another process");
    }
    if (!absl::SimpleAtoi(address.substr(prefix.size()), &id)) {
      return absl::InvalidArgumentError("this in-process link address names no link");
    }
    absl::MutexLock lock(&mutex_);
    const auto found = wires_.find(id);
    auto wire = found == wires_.end() ? nullptr : found->second.lock();
    if (wire == nullptr) return absl::UnavailableError("the link of this address is gone");
    return wire;
  }

 private:
  const uint64_t network_id_ = RandomId();
  absl::Mutex mutex_;
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_map<uint64_t, std::weak_ptr<InProcessWire>> wires_ ABSL_GUARDED_BY(mutex_);
};

std::shared_ptr<InProcessNetwork> MakeInProcessNetwork() {
  return std::make_shared<InProcessNetwork>();
}

InProcessTransport::InProcessTransport(Loop* loop, std::shared_ptr<InProcessNetwork> network,
                                       KvMemory* memory)
    : loop_(loop), network_(std::move(network)), memory_(memory) {}

absl::StatusOr<Transport::Accepted> InProcessTransport::Accept() {
  auto wire = std::make_shared<InProcessWire>(memory_);
  auto completions = std::make_shared<Completions>(loop_);
  {
    absl::MutexLock lock(&wire->mutex);
    wire->completions[InProcessWire::kReceiver] = completions;
  }
  Accepted accepted;
  accepted.address = network_->Add(wire);
  accepted.link = std::make_unique<InProcessLink>(std::move(wire), InProcessWire::kReceiver,
                                                  std::move(completions));
  return accepted;
}

absl::StatusOr<std::unique_ptr<Link>> InProcessTransport::Connect(const std::string& address) {
  LH_ASSIGN_OR_RETURN(std::shared_ptr<InProcessWire> wire, network_->Find(address));
  auto completions = std::make_shared<Completions>(loop_);
  {
    absl::MutexLock lock(&wire->mutex);
    if (wire->closed[InProcessWire::kReceiver]) {
      return absl::UnavailableError("the link of this address is closed");
    }
    if (wire->completions[InProcessWire::kSender] != nullptr) {
      return absl::FailedPreconditionError("this address was given to another sender already");
    }
    wire->completions[InProcessWire::kSender] = completions;
  }
  return std::make_unique<InProcessLink>(std::move(wire), InProcessWire::kSender,
                                         std::move(completions));
}

}  // namespace longhaul
