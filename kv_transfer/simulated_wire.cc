#include "kv_transfer/simulated_wire.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/hash.h"

namespace longhaul {
namespace {

uint64_t ContentOf(const std::vector<SendPiece>& pieces) {
  uint64_t content = 0;
  for (const SendPiece& piece : pieces) content = Hash64Of(piece.data, piece.bytes, content);
  return content;
}

}  // namespace

SimulatedWire::SimulatedWire(SimulatedNetwork* network, std::shared_ptr<Process> receiver)
    : network_(network) {
  processes_[kReceiver] = std::move(receiver);
  completions_[kReceiver] = std::make_shared<Completions>(network->loop_);
}

void SimulatedWire::Connect(std::shared_ptr<Process> sender) {
  processes_[kSender] = std::move(sender);
  completions_[kSender] = std::make_shared<Completions>(network_->loop_);
}

// A step of the wire: later, and not while the two processes cannot reach each other.
void SimulatedWire::Post(int64_t delay_us, absl::AnyInvocable<void()> step) {
  network_->loop_->PostAfter(
      delay_us, [wire = shared_from_this(), step = std::move(step)]() mutable {
        if (wire->Dead()) return;
        if (wire->network_->Blocked(*wire->processes_[kReceiver], *wire->processes_[kSender])) {
          wire->stalled_.push_back(std::move(step));
        } else {
          step();
        }
      });
}

void SimulatedWire::Resume() {
  if (processes_[kSender] == nullptr || stalled_.empty() || Dead() ||
      network_->Blocked(*processes_[kReceiver], *processes_[kSender])) {
    return;
  }
  for (auto& step : std::exchange(stalled_, {})) Post(0, std::move(step));
}

bool SimulatedWire::Dead() const {
  return processes_[kReceiver]->crashed || processes_[kSender]->crashed;
}

void SimulatedWire::Send(TransferTag tag, std::vector<SendPiece> pieces, TransferDone done) {
  const uint64_t content = ContentOf(pieces);
  LH_CHECK(sends_.emplace(tag, SendOperation{std::move(pieces), std::move(done), content}).second,
           absl::StrCat("tag ", tag, " sent twice"));
  if (closed_[kSender]) return EndSend(tag, absl::CancelledError("the link is closed"));
  if (peer_gone_[kSender]) return EndSend(tag, absl::UnavailableError("the receiver is gone"));
  const int64_t delay_us =
      network_->options_.delay_us + network_->Draw(network_->options_.jitter_us);
  if (network_->DrawLoss()) {
    ++network_->counters_.messages_lost;
    if (network_->options_.loss_is_told) Post(delay_us, [this, tag] { Lose(tag); });
    return;
  }
  Post(delay_us, [this, tag] { Arrive(tag); });
}

void SimulatedWire::Lose(TransferTag tag) {
  const absl::Status lost = absl::UnavailableError("the message was lost");
  if (sends_.contains(tag)) EndSend(tag, lost);
  if (receives_.contains(tag)) EndReceive(tag, lost);
}

// Two receives under way into the same bytes are a bug of the process that posted them.
void SimulatedWire::Claim(const std::vector<ReceivePiece>& pieces) {
  std::map<const std::byte*, int64_t>& claimed = processes_[kReceiver]->receiving;
  for (const ReceivePiece& piece : pieces) {
    if (piece.bytes == 0) continue;
    const auto next = claimed.lower_bound(piece.data);
    const bool into_next = next != claimed.end() && next->first < piece.data + piece.bytes;
    const bool into_last =
        next != claimed.begin() && std::prev(next)->first + std::prev(next)->second > piece.data;
    if (into_next || into_last) ++network_->counters_.receives_overlapping;
    claimed.insert_or_assign(piece.data, piece.bytes);
  }
}

void SimulatedWire::Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) {
  LH_CHECK(receives_.emplace(tag, ReceiveOperation{std::move(pieces), std::move(done)}).second,
           absl::StrCat("tag ", tag, " received twice"));
  Claim(receives_.at(tag).pieces);
  if (closed_[kReceiver]) return EndReceive(tag, absl::CancelledError("the link is closed"));
  if (dropped_.Contains(tag)) {
    return EndReceive(tag, absl::DataLossError(absl::StrCat(
                               "the message came before its receive was posted and was dropped: ",
                               "more than ", Link::kUnexpectedMax, " waited")));
  }
  const auto send = sends_.find(tag);
  if (send != sends_.end() && send->second.waiting) return Match(tag);
  if (peer_gone_[kReceiver]) EndReceive(tag, absl::UnavailableError("the sender is gone"));
}

void SimulatedWire::Arrive(TransferTag tag) {
  const auto send = sends_.find(tag);
  if (send == sends_.end() || closed_[kReceiver]) {
    if (send != sends_.end()) WriteOldPieces(tag);
    return;
  }
  if (ended_.Contains(tag)) {
    ++network_->counters_.messages_dropped;
    WriteOldPieces(tag);
    return EndSend(tag, absl::OkStatus());
  }
  if (receives_.contains(tag)) return Match(tag);
  send->second.waiting = true;
  waiting_order_.push_back(tag);
  ++waiting_count_;
  DropBeyondBound();
}

void SimulatedWire::DropBeyondBound() {
  while (waiting_count_ > Link::kUnexpectedMax) {
    const TransferTag oldest = waiting_order_.front();
    waiting_order_.pop_front();
    const auto send = sends_.find(oldest);
    if (send == sends_.end() || !send->second.waiting) continue;
    ++network_->counters_.messages_dropped;
    dropped_.Add(oldest);
    EndSend(oldest, absl::OkStatus());
  }
}

void SimulatedWire::Match(TransferTag tag) {
  SendOperation& send = sends_.at(tag);
  ReceiveOperation& receive = receives_.at(tag);
  if (std::exchange(send.waiting, false)) --waiting_count_;
  receive.moving = true;
  const int64_t sent_bytes = TotalBytes(send.pieces);
  const int64_t wanted_bytes = TotalBytes(receive.pieces);
  if (sent_bytes != wanted_bytes) {
    EndSend(tag, absl::OkStatus());
    return EndReceive(
        tag, absl::DataLossError(absl::StrCat("the sender's message has ", sent_bytes,
                                              " bytes, the receiver expected ", wanted_bytes)));
  }
  ScheduleStep(
      moves_.insert_or_assign(tag, std::make_shared<Move>(tag, send.pieces, receive.pieces))
          .first->second);
}

void SimulatedWire::ScheduleStep(std::shared_ptr<Move> move) {
  const int64_t bytes = std::min(move->left_bytes, network_->options_.step_bytes);
  const int64_t now_us = network_->loop_->NowUs();
  Process& receiver = *processes_[kReceiver];
  Process& sender = *processes_[kSender];
  const int64_t start_us = std::max({now_us, receiver.busy_until_us, sender.busy_until_us});
  const int64_t rate = network_->options_.bytes_per_us;
  const int64_t end_us = start_us + (bytes + rate - 1) / rate;
  receiver.busy_until_us = sender.busy_until_us = end_us;
  Post(end_us - now_us, [this, move = std::move(move), bytes] { Step(move, bytes); });
}

void SimulatedWire::Step(const std::shared_ptr<Move>& move, int64_t bytes) {
  if (move->stopped) return;
  const TransferTag tag = move->tag;
  const SimulatedNetworkOptions& options = network_->options_;
  if (move->from_gone && !options.sender_close_tears) return StopMove(tag);
  for (int64_t left = bytes; left > 0;) {
    const int64_t run =
        std::min({left, move->from_cursor.run_bytes(), move->to_cursor.run_bytes()});
    if (move->from_gone) {
      std::memset(move->to_cursor.data(), static_cast<int>(network_->Draw(255)), run);
    } else {
      std::memcpy(move->to_cursor.data(), move->from_cursor.data(), run);
    }
    if (network_->DrawCorruption()) {
      move->to_cursor.data()[network_->Draw(run - 1)] ^= std::byte{0x40};
      ++network_->counters_.bytes_corrupted;
    }
    move->from_cursor.Advance(run);
    move->to_cursor.Advance(run);
    left -= run;
  }
  network_->counters_.bytes_written += bytes;
  if (move->to_ended) network_->counters_.bytes_written_after_done += bytes;
  move->left_bytes -= bytes;
  const bool segment_over = move->moved_bytes / options.segment_bytes !=
                            (move->moved_bytes + bytes) / options.segment_bytes;
  move->moved_bytes += bytes;
  if (move->left_bytes == 0) {
    ++network_->counters_.messages_delivered;
    if (sends_.contains(tag)) EndSend(tag, absl::OkStatus());
    if (!move->to_ended) EndReceive(tag, absl::OkStatus());
    return;
  }
  const absl::Status cancelled = absl::CancelledError("the transfer was cancelled");
  if (segment_over && !move->to_ended && receives_.at(tag).cancelled) {
    if (sends_.contains(tag)) EndSend(tag, absl::OkStatus());
    return EndReceive(tag, cancelled);
  }
  if (segment_over && !move->from_gone && sends_.contains(tag) && sends_.at(tag).cancelled) {
    EndSend(tag, cancelled);
    return StopMove(tag);
  }
  ScheduleStep(move);
}

// The sender has given up: the receive stays until its own side ends it.
void SimulatedWire::StopMove(TransferTag tag) {
  if (moves_.erase(tag) > 0) receives_.at(tag).moving = false;
}

// mutant_late_send_writes: all at once, where the receive once pointed.
void SimulatedWire::WriteOldPieces(TransferTag tag) {
  const auto old = old_pieces_.find(tag);
  if (old == old_pieces_.end()) return;
  SendCursor from(sends_.at(tag).pieces);
  ReceiveCursor to(old->second);
  const int64_t bytes = CopyPieces(from, to, TotalBytes(old->second));
  network_->counters_.bytes_written += bytes;
  network_->counters_.bytes_written_after_done += bytes;
  old_pieces_.erase(old);
}

void SimulatedWire::EndSend(TransferTag tag, absl::Status status) {
  auto send = sends_.extract(tag);
  if (ContentOf(send.mapped().pieces) != send.mapped().content) ++network_->counters_.sends_changed;
  if (send.mapped().waiting) --waiting_count_;
  if (const auto move = moves_.find(tag); move != moves_.end()) move->second->from_gone = true;
  Completions::Add(completions_[kSender], std::move(send.mapped().done), std::move(status));
}

void SimulatedWire::EndReceive(TransferTag tag, absl::Status status, bool quiesce) {
  auto receive = receives_.extract(tag);
  for (const ReceivePiece& piece : receive.mapped().pieces) {
    processes_[kReceiver]->receiving.erase(piece.data);
  }
  if (const auto move = moves_.find(tag); move != moves_.end()) {
    move->second->stopped = quiesce;
    move->second->to_ended = !quiesce;
    moves_.erase(move);
  }
  if (!status.ok()) {
    ended_.Add(tag);
    if (network_->options_.mutant_late_send_writes && !receive.mapped().moving) {
      old_pieces_.emplace(tag, std::move(receive.mapped().pieces));
    }
  }
  Completions::Add(completions_[kReceiver], std::move(receive.mapped().done), std::move(status));
}

void SimulatedWire::EndAll(End end, const absl::Status& status, bool quiesce) {
  while (end == kSender && !sends_.empty()) EndSend(sends_.begin()->first, status);
  while (end == kReceiver && !receives_.empty()) {
    EndReceive(receives_.begin()->first, status, quiesce);
  }
}

void SimulatedWire::Cancel(End end, TransferTag tag) {
  const absl::Status cancelled = absl::CancelledError("the transfer was cancelled");
  if (end == kSender) {
    const auto send = sends_.find(tag);
    if (send == sends_.end()) return;
    if (!moves_.contains(tag)) return EndSend(tag, cancelled);
    send->second.cancelled = true;
    return;
  }
  const auto receive = receives_.find(tag);
  if (receive == receives_.end()) return;
  const bool moving = receive->second.moving;
  if (network_->options_.mutant_cancel_without_quiesce || !moving) {
    return EndReceive(tag, cancelled, !moving);
  }
  receive->second.cancelled = true;
}

void SimulatedWire::Close(End end) {
  if (std::exchange(closed_[end], true)) return;
  const auto quiesced = [wire = shared_from_this(), end] {
    wire->EndAll(end, absl::CancelledError("the link was closed"),
                 !wire->network_->options_.mutant_close_without_quiesce);
    if (wire->processes_[kSender] != nullptr) wire->TellPeerOf(end);
  };
  const int64_t close_us = network_->Draw(network_->options_.close_us);
  if (close_us == 0 || network_->options_.mutant_close_without_quiesce) {
    quiesced();
  } else {
    network_->loop_->PostAfter(close_us, quiesced);
  }
}

void SimulatedWire::Destroy(End end) {
  if (!std::exchange(closed_[end], true) && processes_[kSender] != nullptr) TellPeerOf(end);
  EndAll(end, absl::CancelledError("the link was closed"),
         !network_->options_.mutant_close_without_quiesce);
  completions_[end]->Run();
}

void SimulatedWire::TellPeerOf(End gone) {
  if (network_->options_.notice_us < 0) return;
  const End peer = gone == kReceiver ? kSender : kReceiver;
  network_->loop_->PostAfter(network_->options_.notice_us, [wire = shared_from_this(), peer] {
    if (wire->processes_[peer]->crashed) return;
    wire->peer_gone_[peer] = true;
    wire->EndAll(peer, absl::UnavailableError("the peer is gone"));
  });
}

}  // namespace longhaul
