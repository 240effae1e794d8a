#include "decode_worker/hand_off.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/mutant.h"

namespace longhaul {

HandOff::HandOff(const HandOffContext* context, Request request, Callbacks callbacks)
    : context_(context),
      request_(std::move(request)),
      callbacks_(std::move(callbacks)),
      position_(request_.first_position),
      self_(std::make_shared<HandOff*>(this)) {}

HandOff::~HandOff() {
  *self_ = nullptr;
  if (MutantIs(Mutant::kLostCancel)) (void)call_.release();
  context_->loop->CancelTimer(stall_timer_);
  context_->loop->CancelTimer(heartbeat_timer_);
  context_->loop->CancelTimer(fence_timer_);
  context_->loop->CancelTimer(retry_timer_);
}

void HandOff::Start() { StartAttempt(); }

// Runs a step from a task of its own: the caller may be a callback of an object that the step
// destroys.
void HandOff::Later(void (HandOff::*step)()) {
  context_->loop->Post([self = self_, step] {
    if (*self != nullptr) ((*self)->*step)();
  });
}

void HandOff::StartAttempt() {
  if (cancelled_) return;
  ++report_.attempts;
  const std::string& address = request_.addresses[PeerOf(report_.attempts)];
  report_.prefill_name = request_.names[PeerOf(report_.attempts)];
  failing_ = false;
  context_->links->Get(address, [self = self_](absl::StatusOr<LinkPool::PeerLink> link) {
    if (*self == nullptr || (*self)->cancelled_) return;
    if (link.ok()) {
      (*self)->Open(*link);
    } else {
      (*self)->FailAttempt(link.status());
    }
  });
}

// A receiver speaks for one attempt; what it says after that attempt is over changes nothing.
bool HandOff::IsCurrent(const HandOff* hand_off, uint32_t transfer_id) {
  return hand_off != nullptr && hand_off->receiver_ != nullptr &&
         hand_off->receiver_->transfer_id() == transfer_id;
}

void HandOff::Open(const LinkPool::PeerLink& link) {
  const int64_t end = static_cast<int64_t>(request_.tokens.size());
  const TransferPlan plan(context_->pool.layout, context_->pool.width(), position_, end,
                          context_->options.chunk_tokens);
  const uint32_t transfer_id = (*context_->next_transfer_id)++;
  LH_CHECK(transfer_id != 0, "this process has used up its transfer ids");
  receiver_ =
      std::make_unique<KvReceiver>(context_->engine, link.link, context_->pool, plan, transfer_id,
                                   KvReceiver::Callbacks{
                                       .chunk_whole =
                                           [self = self_, transfer_id](int) {
                                             if (IsCurrent(*self, transfer_id))
                                               (*self)->OnChunkWhole();
                                           },
                                       .failed =
                                           [self = self_, transfer_id](const absl::Status& status) {
                                             if (IsCurrent(*self, transfer_id))
                                               (*self)->FailAttempt(status);
                                           },
                                       .quiesced =
                                           [self = self_, transfer_id] {
                                             if (IsCurrent(*self, transfer_id))
                                               (*self)->OnQuiesced();
                                           },
                                   });
  for (int i = 0; i < context_->options.window_chunks && i < plan.chunks(); ++i) PostChunk();

  PrefillCommand::Open open;
  open.set_request_id(request_.request_id);
  open.set_decode_name(context_->name);
  open.set_decode_incarnation(context_->incarnation);
  open.set_transfer_id(transfer_id);
  *open.mutable_fingerprint() = context_->fingerprint;
  open.mutable_tokens()->Add(request_.tokens.begin(), request_.tokens.end());
  open.set_first_position(static_cast<int32_t>(position_));
  open.set_chunk_tokens(static_cast<int32_t>(context_->options.chunk_tokens));
  open.set_chunks_granted(receiver_->chunks_posted());
  open.set_link_address(link.address);
  open.set_cache_salt(request_.cache_salt);
  open.set_kv_parts(context_->pool.width());
  open.set_heartbeat_us(context_->options.heartbeat_us);
  const std::string& address = request_.addresses[PeerOf(report_.attempts)];
  call_ = context_->prefill->Prefill(
      address, std::move(open),
      [self = self_](const PrefillEvent& event) {
        if (*self != nullptr) (*self)->OnEvent(event);
      },
      [self = self_](const absl::Status& status) {
        if (*self != nullptr) (*self)->OnStreamDone(status);
      });
  heartbeats_missed_ = 0;
  ArmHeartbeat();
}

void HandOff::PostChunk() {
  const TransferPlan& plan = receiver_->plan();
  const int chunk = receiver_->chunks_posted();
  const absl::Span<const BlockId> blocks = callbacks_.grow(plan.ChunkEnd(chunk));
  receiver_->PostNext(
      blocks.subspan(plan.BlockBegin(chunk), plan.BlockEnd(chunk) - plan.BlockBegin(chunk)));
}

void HandOff::OnEvent(const PrefillEvent& event) {
  // A stream belongs to one attempt; a message that names another one is a fault of the wire and
  // changes nothing.
  const bool stale = event.transfer_id() != receiver_->transfer_id();
  if (!stale) heartbeats_missed_ = 0;
  report_.stale_messages += stale;
  if (failing_ || cancelled_ || (stale && !MutantIs(Mutant::kStaleAttemptAccepted))) return;
  if (event.has_started()) {
    report_.prefill_queue_us = event.started().queue_us();
    report_.prefill_cached_tokens = event.started().cached_tokens();
  } else if (event.has_chunk_sent()) {
    const PrefillEvent::ChunkSent& sent = event.chunk_sent();
    report_.prefill_compute_us = sent.compute_us();
    report_.exposed_us = sent.since_computed_us();
    receiver_->OnDigest(sent.chunk(), sent.digest());
    if (!failing_ && receiver_->chunks_missing() > 0) ArmStall();
  }
}

void HandOff::OnChunkWhole() {
  const TransferPlan& plan = receiver_->plan();
  report_.last_byte_us = context_->loop->NowUs();
  if (report_.first_byte_us == 0) report_.first_byte_us = report_.last_byte_us;
  if (receiver_->chunks_whole() == 0) return;
  const int64_t position_end = plan.ChunkEnd(receiver_->chunks_whole() - 1);
  if (position_end > position_) {
    position_ = position_end;
    callbacks_.filled(position_end);
  }
  context_->loop->CancelTimer(stall_timer_);
  if (receiver_->complete()) {
    complete_ = true;
    report_.kv_bytes += receiver_->bytes_received();
    callbacks_.done(absl::OkStatus());
    return;
  }
  if (receiver_->chunks_missing() > 0) ArmStall();
  if (receiver_->chunks_posted() < plan.chunks() && !MutantIs(Mutant::kCreditLeaked)) {
    PostChunk();
    call_->Grant(receiver_->chunks_posted());
  }
}

void HandOff::ArmStall() {
  if (failing_ || cancelled_ || complete_) return;
  context_->loop->CancelTimer(stall_timer_);
  const HandOffOptions& options = context_->options;
  const int64_t window_bytes =
      options.window_chunks * context_->pool.layout.token_bytes() * options.chunk_tokens;
  const auto transfer_us =
      static_cast<int64_t>(static_cast<double>(window_bytes) / options.link_bytes_per_us_min);
  stall_timer_ = context_->loop->PostAfter(options.stall_us + transfer_us, [this] {
    FailAttempt(absl::DeadlineExceededError("the prefill worker sent KV that did not arrive"));
  });
}

// The other side is told, and what it has said is looked at, one interval at a time: if it was this
// process that stood still, only one timer is late, and the words that came meanwhile are heard
// before the next.
void HandOff::ArmHeartbeat() {
  heartbeat_timer_ =
      context_->loop->PostAfter(context_->options.heartbeat_us, [this] { Heartbeat(); });
}

void HandOff::Heartbeat() {
  const HandOffOptions& options = context_->options;
  if (++heartbeats_missed_ <= options.heartbeats_missed_max || MutantIs(Mutant::kSilenceIgnored)) {
    call_->Grant(receiver_->chunks_posted());
    ArmHeartbeat();
  } else if (complete_) {
    OnStreamDone(absl::OkStatus());  // nothing more is wanted of it
  } else {
    FailAttempt(absl::DeadlineExceededError(
        absl::StrCat("no word from the prefill worker for ",
                     options.heartbeat_us * options.heartbeats_missed_max / 1000, " ms")));
  }
}

void HandOff::OnStreamDone(const absl::Status& status) {
  context_->loop->CancelTimer(heartbeat_timer_);
  if (complete_) {
    call_.reset();
    Later(&HandOff::Closed);
    return;
  }
  if (status.ok()) {
    ArmStall();  // the end of the stream may overtake bytes that are still on the wire
  } else {
    FailAttempt(status);
  }
}

void HandOff::Closed() { callbacks_.closed(); }

void HandOff::FailAttempt(const absl::Status& status) {
  if (failing_ || cancelled_ || complete_) return;
  failing_ = true;
  failure_ = status;
  if (absl::IsDataLoss(status)) ++report_.digest_mismatches;
  LogWarning("hand_off_attempt_failed", {{"request_id", request_.request_id},
                                         {"prefill", report_.prefill_name},
                                         {"attempt", report_.attempts},
                                         {"whole_tokens", position_},
                                         {"error", status.ToString()}});
  context_->loop->CancelTimer(stall_timer_);
  context_->loop->CancelTimer(heartbeat_timer_);
  call_.reset();
  if (receiver_ != nullptr) {
    receiver_->Cancel();
    // A peer that is gone will never end what it began; its link is of no use to anybody.
    if (absl::IsUnavailable(status)) context_->links->Retire(receiver_->link());
    if (MutantIs(Mutant::kReuseBeforeQuiesce)) (void)receiver_.release();
  }
  if (quiesced()) {
    Later(&HandOff::OnQuiesced);
  } else {
    ArmFence();
  }
}

void HandOff::ArmFence() {
  context_->loop->CancelTimer(fence_timer_);  // of an attempt that failed before the cancel came
  fence_timer_ = context_->loop->PostAfter(context_->options.quiesce_us, [this] {
    if (!quiesced()) context_->links->Retire(receiver_->link());
  });
}

void HandOff::OnQuiesced() {
  context_->loop->CancelTimer(fence_timer_);
  if (cancelled_) {
    callbacks_.quiesced();
    return;
  }
  if (receiver_ != nullptr) report_.kv_bytes += receiver_->bytes_received();
  // The receiver may be on the stack above.
  context_->loop->Post(
      [self = self_, receiver = std::shared_ptr<KvReceiver>(std::move(receiver_))] {
        if (*self == nullptr || (*self)->cancelled_) return;
        (*self)->NextAttempt();
      });
}

void HandOff::NextAttempt() {
  const bool all_asked = report_.attempts >= static_cast<int>(request_.addresses.size());
  // What this prompt, or the whole pool, is at fault for will not be different the next time.
  const bool hopeless =
      absl::IsInvalidArgument(failure_) || (absl::IsFailedPrecondition(failure_) && all_asked);
  if (hopeless || report_.attempts >= context_->options.attempts_max) {
    callbacks_.done(failure_);
  } else if (all_asked) {
    retry_timer_ =
        context_->loop->PostAfter(context_->options.retry_us, [this] { StartAttempt(); });
  } else {
    StartAttempt();
  }
}

void HandOff::Cancel() {
  if (cancelled_) return;
  cancelled_ = true;
  context_->loop->CancelTimer(stall_timer_);
  context_->loop->CancelTimer(heartbeat_timer_);
  if (!MutantIs(Mutant::kLostCancel)) call_.reset();
  if (receiver_ == nullptr) return;
  receiver_->Cancel();
  if (MutantIs(Mutant::kReuseBeforeQuiesce)) (void)receiver_.release();
  if (!quiesced()) ArmFence();
}

}  // namespace longhaul
