#include "kv_transfer/ucx/ucx_receiver.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace longhaul {
namespace {

constexpr int kStagingBuffersMax = 8;
// Bytes of small messages that wait for their receive; those of large ones wait at the sender.
constexpr int64_t kHeldBytesMax = 64 << 20;
// A sender has no more segments of one message on their way.
constexpr size_t kHeldSegmentsMax = 16;
constexpr int64_t kPathBytesMax = 100;
// Segments that are being fetched at a time. Close has to finish them, so there are few.
constexpr size_t kFetchesMax = 8;
// Close gives up on fetches after so many rounds: one moves 512 KiB, so this is some hundred times
// what they need.
constexpr int kQuiesceRoundsMax = 4096;
// A device moves by itself what it has been asked to, and a round of ours moves nothing: it gets
// some hundred times what it needs beside a busy model.
constexpr auto kDeviceQuiesceMax = std::chrono::seconds(1);

bool ReadHeader(const void* header, size_t header_bytes, UcxSegmentHeader& read) {
  if (header_bytes != sizeof(read)) return false;
  std::memcpy(&read, header, sizeof(read));
  return true;
}

ucs_status_t Ignore(void*, const void*, size_t, void*, size_t, const ucp_am_recv_param_t*) {
  return UCS_OK;
}

bool IsHere(const ucp_am_recv_param_t* param) {
  return (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0;
}

}  // namespace

UcxReceiver::UcxReceiver(UcxTransport* transport, std::unique_ptr<UcxWorker> worker,
                         uint64_t link_id)
    : UcxLink(transport, std::move(worker), link_id), staging_(buffers(), kStagingBuffersMax) {
  SetHandler(kGreetingMessage, Ignore, nullptr);
  SetHandler(
      kSegmentMessage,
      [](void* arg, const void* header_data, size_t header_bytes, void* data, size_t bytes,
         const ucp_am_recv_param_t* param) {
        auto* const self = static_cast<UcxReceiver*>(arg);
        UcxSegmentHeader header;
        if (!ReadHeader(header_data, header_bytes, header) || header.link_id != self->link_id_) {
          ++self->drops().foreign;
          return UCS_OK;
        }
        if ((param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0) {
          self->reply_endpoint_ = param->reply_ep;
        }
        return self->SegmentArrived(header, data, static_cast<int64_t>(bytes), IsHere(param));
      },
      this);
  SetHandler(
      kAbandonMessage,
      [](void* arg, const void* header_data, size_t header_bytes, void*, size_t,
         const ucp_am_recv_param_t*) {
        auto* const self = static_cast<UcxReceiver*>(arg);
        UcxSegmentHeader header;
        if (ReadHeader(header_data, header_bytes, header) && header.link_id == self->link_id_) {
          self->DropHeld(header.tag);
        }
        return UCS_OK;
      },
      this);
  SetHandler(
      kPathMessage,
      [](void* arg, const void* header_data, size_t header_bytes, void* data, size_t bytes,
         const ucp_am_recv_param_t* param) {
        auto* const self = static_cast<UcxReceiver*>(arg);
        UcxSegmentHeader header;
        if (ReadHeader(header_data, header_bytes, header) && header.link_id == self->link_id_ &&
            IsHere(param) && bytes > 0 && bytes <= kPathBytesMax) {
          self->path_.assign(static_cast<const char*>(data), bytes);
        }
        return UCS_OK;
      },
      this);
}

UcxReceiver::~UcxReceiver() { Shutdown(); }

void UcxReceiver::SetHandler(UcxMessageId id, ucp_am_recv_callback_t callback, void* arg) {
  ucp_am_handler_param_t params{};
  params.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                      UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  params.id = id;
  params.flags = UCP_AM_FLAG_WHOLE_MSG;
  params.cb = callback;
  params.arg = arg;
  const ucs_status_t status = ucp_worker_set_am_recv_handler(worker(), &params);
  LH_CHECK(status == UCS_OK, ucs_status_string(status));
}

void UcxReceiver::Send(TransferTag, std::vector<SendPiece>, TransferDone) {
  LH_CHECK(false, "Send on the receiving end of a link");
}

void UcxReceiver::Receive(TransferTag tag, std::vector<ReceivePiece> pieces, TransferDone done) {
  if (closed()) return Finish(std::move(done), absl::CancelledError("the link is closed"));
  if (dropped_.Contains(tag)) {
    return Finish(std::move(done),
                  absl::DataLossError(absl::StrCat(
                      "the message came before its receive was posted and was dropped: more than ",
                      kUnexpectedMax, " waited")));
  }
  const auto [found, inserted] =
      messages_.emplace(tag, std::make_unique<Message>(std::move(pieces), std::move(done)));
  LH_CHECK(inserted, absl::StrCat("tag ", tag, " received twice"));
  auto held = held_.extract(tag);
  if (held.empty()) return;
  for (Arrival& arrival : held.mapped()) {
    held_bytes_ -= static_cast<int64_t>(arrival.data.size());
    Take(*found->second, std::move(arrival));
  }
}

void UcxReceiver::Cancel(TransferTag tag) {
  const auto found = messages_.find(tag);
  if (found == messages_.end()) return;
  FailMessage(tag, *found->second, absl::CancelledError("the transfer was cancelled"));
}

// In UCX's callback: UCS_OK lets UCX drop the segment (and tell the sender that it is over),
// UCS_INPROGRESS keeps it.
ucs_status_t UcxReceiver::SegmentArrived(const UcxSegmentHeader& header, void* data, int64_t bytes,
                                         bool here) {
  if (closing_ || !broken_.ok()) return UCS_OK;
  shared_memory_ = header.network == 0;
  const auto found = messages_.find(header.tag);
  if (found != messages_.end()) {
    if (here) {
      TakeBytes(*found->second, header, static_cast<const std::byte*>(data), bytes);
      return UCS_OK;
    }
    if (!Fits(*found->second, header, bytes)) return UCS_OK;
    Take(*found->second, {header, bytes, data, {}});
    return UCS_INPROGRESS;
  }
  if (ended_.Contains(header.tag) || dropped_.Contains(header.tag)) {
    ++drops().late;
    return UCS_OK;
  }
  Arrival arrival{header, bytes, here ? nullptr : data, {}};
  if (here && bytes > 0) {
    const auto* const first = static_cast<const std::byte*>(data);
    arrival.data.assign(first, first + bytes);
  }
  Hold(std::move(arrival));
  return here ? UCS_OK : UCS_INPROGRESS;
}

void UcxReceiver::Hold(Arrival arrival) {
  const TransferTag tag = arrival.header.tag;
  held_bytes_ += static_cast<int64_t>(arrival.data.size());
  auto& segments = held_[tag];
  if (segments.empty()) held_order_.push_back(tag);
  segments.push_back(std::move(arrival));
  const auto give_up = [this](TransferTag loser) {
    ++drops().unexpected;
    DropHeld(loser);
    dropped_.Add(loser);
  };
  if (segments.size() > kHeldSegmentsMax) give_up(tag);
  while (static_cast<int>(held_.size()) > kUnexpectedMax || held_bytes_ > kHeldBytesMax) {
    const TransferTag oldest = held_order_.front();
    held_order_.pop_front();
    if (held_.contains(oldest)) give_up(oldest);
  }
  while (!held_order_.empty() && !held_.contains(held_order_.front())) held_order_.pop_front();
}

void UcxReceiver::DropHeld(TransferTag tag) {
  auto held = held_.extract(tag);
  if (held.empty()) return;
  for (const Arrival& arrival : held.mapped()) {
    held_bytes_ -= static_cast<int64_t>(arrival.data.size());
    Drop(arrival);
  }
}

void UcxReceiver::Drop(const Arrival& arrival) {
  if (arrival.descriptor != nullptr && broken_.ok())
    ucp_am_data_release(worker(), arrival.descriptor);
}

bool UcxReceiver::Fits(Message& message, const UcxSegmentHeader& header, int64_t bytes) {
  if (!message.status.ok() || message.queued) return false;
  const auto message_bytes = static_cast<uint64_t>(message.bytes);
  if (header.message_bytes != message_bytes) {
    FailMessage(header.tag, message,
                absl::DataLossError(absl::StrCat("the sender's message has ", header.message_bytes,
                                                 " bytes, the receiver expected ", message.bytes)));
    return false;
  }
  if (bytes > options().segment_bytes_max || header.offset_bytes > message_bytes ||
      static_cast<uint64_t>(bytes) > message_bytes - header.offset_bytes) {
    FailMessage(
        header.tag, message,
        absl::DataLossError(absl::StrCat("a segment of ", bytes, " bytes at ", header.offset_bytes,
                                         " leaves its message of ", message.bytes, " bytes")));
    return false;
  }
  return true;
}

void UcxReceiver::Take(Message& message, Arrival arrival) {
  if (arrival.descriptor == nullptr) {
    TakeBytes(message, arrival.header, arrival.data.data(), arrival.bytes);
  } else if (!Fits(message, arrival.header, arrival.bytes)) {
    Drop(arrival);
  } else {
    to_fetch_.push_back(std::move(arrival));
  }
}

void UcxReceiver::TakeBytes(Message& message, const UcxSegmentHeader& header, const std::byte* data,
                            int64_t bytes) {
  if (!Fits(message, header, bytes)) return;
  ReceiveCursor& cursor = CursorAt(message, static_cast<int64_t>(header.offset_bytes));
  const std::vector<SendPiece> from = {{data, bytes}};
  SendCursor source(from);
  memory().Copy(PairedRuns(source, cursor, bytes));
  message.cursor_offset += bytes;
  message.received_bytes += bytes;
  message.begun = true;
  if (message.received_bytes == message.bytes) QueueFinish(header.tag, message);
}

// Segments come nearly in order, so the cursor seldom starts anew.
ReceiveCursor& UcxReceiver::CursorAt(Message& message, int64_t offset_bytes) {
  if (offset_bytes < message.cursor_offset) {
    message.cursor = ReceiveCursor(message.pieces);
    message.cursor_offset = 0;
  }
  message.cursor.Advance(offset_bytes - message.cursor_offset);
  message.cursor_offset = offset_bytes;
  return message.cursor;
}

void UcxReceiver::Pump() {
  if (!broken_.ok()) return Fail(broken_);
  while (broken_.ok() && !to_fetch_.empty() && MayFetch() && fetches_.size() < kFetchesMax &&
         StartFetch(to_fetch_.front())) {
    to_fetch_.pop_front();
  }
  while (!to_finish_.empty()) {
    const TransferTag tag = to_finish_.front();
    to_finish_.pop_front();
    auto message = messages_.extract(tag);
    if (!message.mapped()->status.ok()) ended_.Add(tag);
    Finish(std::move(message.mapped()->done), message.mapped()->status);
  }
}

bool UcxReceiver::MayFetch() {
  answered_ = answered_ || shared_memory_ || worker_->Finished();
  return answered_;
}

bool UcxReceiver::StartFetch(Arrival& arrival) {
  const auto found = messages_.find(arrival.header.tag);
  // Cancelled while it waited here; a message that has ended knows no fetch.
  if (found == messages_.end() || !found->second->status.ok() || found->second->queued) {
    Drop(arrival);
    return true;
  }
  Message& message = *found->second;
  const ReceiveCursor& cursor =
      CursorAt(message, static_cast<int64_t>(arrival.header.offset_bytes));
  UcxStaging::Buffer staging;
  std::byte* to = nullptr;
  if (arrival.bytes == 0 || cursor.run_bytes() >= arrival.bytes) {
    to = arrival.bytes == 0 ? nullptr : cursor.data();
  } else {
    absl::StatusOr<UcxStaging::Buffer> taken = staging_.Take();
    if (!taken.ok()) {
      Drop(arrival);
      FailMessage(arrival.header.tag, message, taken.status());
      return true;
    }
    if (*taken == nullptr) return false;
    staging = *std::move(taken);
    to = staging->data();
  }
  auto* const fetch = new Fetch{this, arrival.header, arrival.bytes, std::move(staging)};
  fetches_.insert(fetch);
  ++message.in_flight;
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.cb.recv_am = [](void* request, ucs_status_t status, size_t, void* user_data) {
    ucp_request_free(request);
    auto* const ended = static_cast<Fetch*>(user_data);
    ended->receiver->FetchEnded(ended, status);
  };
  params.user_data = fetch;
  if (arrival.bytes > 0) SetMemoryKind(memory().kind(), params);
  const ucs_status_ptr_t request =
      ucp_am_recv_data_nbx(worker(), arrival.descriptor, to, arrival.bytes, &params);
  if (request == nullptr) {
    FetchEnded(fetch, UCS_OK);
  } else if (UCS_PTR_IS_ERR(request)) {
    FetchEnded(fetch, UCS_PTR_STATUS(request));
  }
  return true;
}

void UcxReceiver::FetchEnded(Fetch* fetch, ucs_status_t status) {
  fetches_.erase(fetch);
  const std::unique_ptr<Fetch> owned(fetch);
  const TransferTag tag = fetch->header.tag;
  Message& message = *messages_.at(tag);
  --message.in_flight;
  if (status != UCS_OK) {
    broken_ = absl::UnavailableError(
        absl::StrCat("the sender is gone: UCX cannot read from it: ", ucs_status_string(status)));
    // When we are closing, that is the reason.
    if (!closing_) FailMessage(tag, message, broken_);
  } else if (fetch->staging != nullptr) {
    TakeBytes(message, fetch->header, fetch->staging->data(), fetch->bytes);
  } else {
    message.received_bytes += fetch->bytes;
  }
  if (fetch->staging != nullptr) staging_.GiveBack(std::move(fetch->staging));
  QueueFinish(tag, message);
}

void UcxReceiver::FailMessage(TransferTag tag, Message& message, absl::Status status) {
  if (message.status.ok()) message.status = std::move(status);
  QueueFinish(tag, message);
}

// Looks whether the message is over; its callback follows in Pump, never from here.
void UcxReceiver::QueueFinish(TransferTag tag, Message& message) {
  const bool whole = message.received_bytes == message.bytes;
  if (message.in_flight > 0 || message.queued || (message.status.ok() && !whole)) return;
  // A cancel that came too late: all bytes are there.
  if (absl::IsCancelled(message.status) && whole && message.bytes > 0) message.status = {};
  message.queued = true;
  to_finish_.push_back(tag);
}

UcxLink::Rest UcxReceiver::Quiesce() {
  if (broken_.ok()) {
    // Tells the sender, if it still listens, that nobody will fetch these.
    for (const Arrival& arrival : to_fetch_) Drop(arrival);
    for (const auto& [tag, arrivals] : held_) {
      for (const Arrival& arrival : arrivals) Drop(arrival);
    }
  }
  to_fetch_.clear();
  held_.clear();
  held_order_.clear();
  held_bytes_ = 0;
  // A fetch by cross-memory attach needs no peer, only our own progress, and UCX 1.13 aborts the
  // process when its worker is destroyed under one. A fetch that needs the peer makes no progress
  // without it; that one may be left.
  closing_ = true;
  const bool on_device = memory().kind() != MemoryKind::kHost;
  const auto give_up = std::chrono::steady_clock::now() + kDeviceQuiesceMax;
  for (int round = 0; !fetches_.empty() && broken_.ok(); ++round) {
    const bool moved = ucp_worker_progress(worker()) != 0;
    if (on_device ? std::chrono::steady_clock::now() > give_up
                  : !moved || round == kQuiesceRoundsMax) {
      break;
    }
  }
  if (shared_memory_ || !broken_.ok()) return Rest::kDestroyNow;
  if (!fetches_.empty()) {
    if (reply_endpoint_ == nullptr) return Rest::kDestroyNow;
    ucp_request_param_t params{};
    params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    params.flags = UCP_EP_CLOSE_FLAG_FORCE;
    // The worker is destroyed below, and this request with it.
    ucp_ep_close_nbx(reply_endpoint_, &params);
    for (int round = 0; round < kQuiesceRoundsMax && !fetches_.empty(); ++round) {
      ucp_worker_progress(worker());
    }
    return Rest::kDestroyNow;
  }
  // The worker goes on without us.
  for (const auto id : {kSegmentMessage, kAbandonMessage, kPathMessage}) {
    SetHandler(id, Ignore, nullptr);
  }
  return Rest::kBury;
}

void UcxReceiver::EndAll(const absl::Status& status) {
  for (Fetch* fetch : fetches_) {
    if (fetch->staging != nullptr) staging_.GiveBack(std::move(fetch->staging));
    delete fetch;
  }
  fetches_.clear();
  to_finish_.clear();
  for (auto& [tag, message] : std::exchange(messages_, {})) {
    const bool over = message->queued || !message->status.ok();
    Finish(std::move(message->done), over ? message->status : status);
  }
}

}  // namespace longhaul
