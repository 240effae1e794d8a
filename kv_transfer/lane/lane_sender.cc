#include "kv_transfer/lane/lane_sender.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "kv_transfer/lane/lane_transport.h"

namespace longhaul {
namespace {

using Kind = LaneMessage::Kind;

// A part is long enough to hide its announcement; a cancelled message stops within a few of them.
constexpr int64_t kPartBytesMax = 16 << 20;
constexpr size_t kPartPiecesMax = 1024;
constexpr int64_t kMovingBytesMax = 4 * kPartBytesMax;

}  // namespace

LaneSender::LaneSender(LaneTransport* transport, std::unique_ptr<Lane> lane,
                       std::unique_ptr<ControlConnection> connection, uint64_t secret)
    : LaneLink(transport, std::move(lane)) {
  Tell({Kind::kHello, secret, {}});
  Attach(std::move(connection));
}

void LaneSender::Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) {
  if (!open()) return Finish(std::move(done), end_status());
  if (forgotten_.Contains(tag)) return Finish(std::move(done), absl::OkStatus());
  auto& message = messages_[tag];
  LH_CHECK(message == nullptr, absl::StrCat("tag ", tag, " sent twice"));
  message = std::make_unique<Message>(std::move(pieces), std::move(done));
  if (auto wanted = wants_.extract(tag)) return Match(tag, wanted.mapped());
  Tell({Kind::kOffer, tag, {}});
}

void LaneSender::Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) {
  LH_CHECK(false, "Receive on the sending end of a link");
}

void LaneSender::Cancel(TransferTag tag) {
  Stop(tag, absl::CancelledError("the transfer was cancelled"));
}

absl::Status LaneSender::Take(LaneMessage message) {
  const TransferTag tag = message.tag;
  switch (message.kind) {
    case Kind::kWant:
      if (messages_.contains(tag)) {
        Match(tag, message.sizes);
      } else {
        wants_[tag] = std::move(message.sizes);
      }
      return absl::OkStatus();
    case Kind::kForget:
      wants_.erase(tag);
      forgotten_.Add(tag);
      Stop(tag, absl::OkStatus());
      return absl::OkStatus();
    case Kind::kDrop:
      Stop(tag, absl::OkStatus());
      return absl::OkStatus();
    default:
      return absl::UnavailableError("the receiving end of the link spoke out of turn");
  }
}

void LaneSender::Match(TransferTag tag, const std::vector<int64_t>& wanted) {
  Message& message = *messages_[tag];
  if (message.outcome.has_value() || std::exchange(message.matched, true)) return;
  for (const int64_t bytes : wanted) message.wanted.push_back({nullptr, bytes});
  if (TotalBytes(message.wanted) != message.bytes) {
    Tell({Kind::kMismatch, tag, {message.bytes}});
    return Stop(tag, absl::OkStatus());
  }
  message.to = ReceiveCursor(message.wanted);
  matched_.push_back(tag);
  FillLane();
}

void LaneSender::Stop(TransferTag tag, absl::Status outcome) {
  const auto found = messages_.find(tag);
  if (found == messages_.end() || found->second->outcome.has_value()) return;
  Message& message = *found->second;
  message.outcome = std::move(outcome);
  if (message.moving_bytes > 0) return;
  Finish(std::move(message.done), *std::move(message.outcome));
  messages_.erase(found);
}

void LaneSender::FillLane() {
  while (open() && !matched_.empty() && moving_bytes_ < kMovingBytesMax) {
    const TransferTag tag = matched_.front();
    const auto found = messages_.find(tag);
    if (found != messages_.end() && !found->second->outcome.has_value()) {
      Message& message = *found->second;
      QueuePart(tag, message);
      if (!message.from.at_end()) continue;
      Stop(tag, absl::OkStatus());
    }
    matched_.pop_front();
  }
}

void LaneSender::QueuePart(TransferTag tag, Message& message) {
  std::vector<SendPiece> pieces;
  std::vector<int64_t> sizes;
  int64_t left = kPartBytesMax;
  while (left > 0 && pieces.size() < kPartPiecesMax && !message.from.at_end()) {
    const int64_t bytes = std::min({left, message.from.run_bytes(), message.to.run_bytes()});
    pieces.push_back({message.from.data(), bytes});
    sizes.push_back(bytes);
    message.from.Advance(bytes);
    message.to.Advance(bytes);
    left -= bytes;
  }
  Tell({Kind::kGo, tag, std::move(sizes)});
  if (pieces.empty()) return;
  const int64_t bytes = kPartBytesMax - left;
  message.moving_bytes += bytes;
  moving_bytes_ += bytes;
  lane().Send(std::move(pieces), Expect(tag, bytes));
}

void LaneSender::Ended(const LaneEvents::Event& event) {
  moving_bytes_ -= event.bytes;
  const auto found = messages_.find(event.tag);
  LH_CHECK(found != messages_.end(), absl::StrCat("a part of no message: tag ", event.tag));
  Message& message = *found->second;
  message.moving_bytes -= event.bytes;
  if (!event.status.ok()) message.outcome = end_status();
  if (message.moving_bytes == 0 && message.outcome.has_value()) {
    Finish(std::move(message.done), *std::move(message.outcome));
    messages_.erase(found);
  }
  FillLane();
}

void LaneSender::EndIdle() {
  std::vector<TransferTag> tags;
  for (const auto& [tag, message] : messages_) tags.push_back(tag);
  for (const TransferTag tag : tags) Stop(tag, end_status());
}

}  // namespace longhaul
