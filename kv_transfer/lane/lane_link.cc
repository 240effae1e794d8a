#include "kv_transfer/lane/lane_link.h"

#include <unistd.h>

#include "kv_transfer/lane/lane_transport.h"

namespace longhaul {

LaneDone LaneEvents::Expect(const std::shared_ptr<LaneEvents>& events, TransferTag tag,
                            int64_t bytes) {
  return [events, tag, bytes](absl::Status status) {
    absl::MutexLock lock(&events->mutex_);
    events->events_.push_back({tag, bytes, std::move(status)});
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(events->wake_fd_, &one, sizeof one);
  };
}

std::vector<LaneEvents::Event> LaneEvents::Take() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(events_, {});
}

LaneLink::LaneLink(LaneTransport* transport, std::unique_ptr<Lane> lane)
    : transport_(transport),
      path_(lane->path()),
      events_(std::make_shared<LaneEvents>(transport->wake_fd())),
      lane_(std::move(lane)) {
  transport_->Add(this);
}

LaneLink::~LaneLink() { transport_->Remove(this); }

WireTransport::Drops& LaneLink::drops() { return transport_->drops_; }

void LaneLink::End(absl::Status reason) {
  end_status_ = std::move(reason);
  lane_->Abort();
  connection_ = nullptr;
  EndIdle();
}

void LaneLink::Shutdown() {
  Close();
  lane_ = nullptr;
  TakeEvents();
  while (!due_.empty()) {
    auto [done, status] = std::move(due_.front());
    due_.pop_front();
    std::move(done)(std::move(status));
  }
}

void LaneLink::Tell(LaneMessage message) {
  if (!open()) return;
  if (connection_ == nullptr) {
    before_connection_.push_back(std::move(message));
  } else {
    connection_->Send(message);
  }
}

void LaneLink::Attach(std::unique_ptr<ControlConnection> connection) {
  connection_ = std::move(connection);
  for (LaneMessage& message : std::exchange(before_connection_, {})) connection_->Send(message);
  lane_->Join();
}

void LaneLink::TakeEvents() {
  for (const LaneEvents::Event& event : events_->Take()) {
    if (!event.status.ok()) Fail(event.status);
    Ended(event);
  }
}

bool LaneLink::Poll() {
  if (connection_ != nullptr) {
    absl::Status malformed;
    absl::Status status = connection_->Pump([&](LaneMessage message) {
      malformed = Take(std::move(message));
      return malformed.ok();
    });
    if (!malformed.ok()) status = std::move(malformed);
    if (!status.ok()) Fail(std::move(status));
  }
  TakeEvents();
  // Callbacks may queue further ones: those have their turn next time.
  auto due = std::exchange(due_, {});
  for (auto& [done, status] : due) std::move(done)(std::move(status));
  return !due.empty();
}

}  // namespace longhaul
