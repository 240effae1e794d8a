#include "kv_transfer/lane/lane_receiver.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "kv_transfer/lane/lane_transport.h"

namespace longhaul {
namespace {

using Kind = LaneMessage::Kind;

}  // namespace

void LaneReceiver::Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) {
  LH_CHECK(false, "Send on the receiving end of a link");
}

void LaneReceiver::Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) {
  if (!open()) return Finish(std::move(done), end_status());
  if (dropped_.Contains(tag)) {
    return Finish(std::move(done),
                  absl::DataLossError(absl::StrCat("the message came before its receive was posted "
                                                   "and was dropped: more than ",
                                                   kUnexpectedMax, " waited")));
  }
  unexpected_tags_.erase(tag);
  LaneMessage want{Kind::kWant, tag, {}};
  for (const ReceivePiece& piece : pieces) {
    if (piece.bytes > 0) want.sizes.push_back(piece.bytes);
  }
  auto& message = messages_[tag];
  LH_CHECK(message == nullptr, absl::StrCat("tag ", tag, " received twice"));
  message = std::make_unique<Message>(std::move(pieces), std::move(done));
  Tell(std::move(want));
}

void LaneReceiver::Cancel(TransferTag tag) {
  if (!messages_.contains(tag)) return;
  Tell({Kind::kForget, tag, {}});
  Stop(tag, absl::CancelledError("the transfer was cancelled"));
}

absl::Status LaneReceiver::Take(LaneMessage message) {
  switch (message.kind) {
    case Kind::kGo:
      return TakePart(message.tag, std::move(message.sizes));
    case Kind::kMismatch: {
      const auto found = messages_.find(message.tag);
      if (found == messages_.end() || message.sizes.size() != 1) return absl::OkStatus();
      Stop(message.tag, absl::DataLossError(absl::StrCat(
                            "the sender's message has ", message.sizes[0],
                            " bytes, the receiver expected ", TotalBytes(found->second->pieces))));
      return absl::OkStatus();
    }
    case Kind::kOffer:
      TakeOffer(message.tag);
      return absl::OkStatus();
    default:
      return absl::UnavailableError("the sending end of the link spoke out of turn");
  }
}

void LaneReceiver::TakeOffer(TransferTag tag) {
  if (messages_.contains(tag) || ended_.Contains(tag)) return;
  unexpected_tags_.insert(tag);
  unexpected_.push_back(tag);
  while (unexpected_tags_.size() > kUnexpectedMax ||
         !unexpected_tags_.contains(unexpected_.front())) {
    const TransferTag oldest = unexpected_.front();
    unexpected_.pop_front();
    if (unexpected_tags_.erase(oldest) == 0) continue;
    ++drops().unexpected;
    dropped_.Add(oldest);
    Tell({Kind::kDrop, oldest, {}});
  }
}

absl::Status LaneReceiver::TakePart(TransferTag tag, std::vector<int64_t> sizes) {
  const int64_t bytes = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  const auto found = messages_.find(tag);
  if (found == messages_.end() || found->second->outcome.has_value()) {
    ++drops().late;
    if (bytes > 0) lane().Discard(std::move(sizes), Expect(tag, 0));
    return absl::OkStatus();
  }
  Message& message = *found->second;
  std::vector<ReceivePiece> pieces;
  for (const int64_t size : sizes) {
    if (size == 0 || message.to.at_end() || size > message.to.run_bytes()) {
      return absl::UnavailableError(
          absl::StrCat("the sender announced a piece of ", size, " bytes where ",
                       message.to.at_end() ? 0 : message.to.run_bytes(), " are wanted"));
    }
    pieces.push_back({message.to.data(), size});
    message.to.Advance(size);
  }
  if (!pieces.empty()) {
    message.moving_bytes += bytes;
    lane().Receive(std::move(pieces), Expect(tag, bytes));
  }
  if (message.to.at_end()) Stop(tag, absl::OkStatus());
  return absl::OkStatus();
}

void LaneReceiver::Stop(TransferTag tag, absl::Status outcome) {
  const auto found = messages_.find(tag);
  if (found == messages_.end() || found->second->outcome.has_value()) return;
  Message& message = *found->second;
  ended_.Add(tag);
  message.outcome = std::move(outcome);
  if (message.moving_bytes > 0) return;
  Finish(std::move(message.done), *std::move(message.outcome));
  messages_.erase(found);
}

void LaneReceiver::Ended(const LaneEvents::Event& event) {
  if (event.bytes == 0) return;  // was discarded
  const auto found = messages_.find(event.tag);
  LH_CHECK(found != messages_.end(), absl::StrCat("a part of no message: tag ", event.tag));
  Message& message = *found->second;
  message.moving_bytes -= event.bytes;
  if (!event.status.ok()) message.outcome = end_status();
  if (message.moving_bytes > 0 || !message.outcome.has_value()) return;
  Finish(std::move(message.done), *std::move(message.outcome));
  messages_.erase(found);
}

void LaneReceiver::EndIdle() {
  std::vector<TransferTag> tags;
  for (const auto& [tag, message] : messages_) tags.push_back(tag);
  for (const TransferTag tag : tags) Stop(tag, end_status());
}

}  // namespace longhaul
