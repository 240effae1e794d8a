// LaneLink: what both ends of a lane link share: the lane, the connection beside it, the callbacks
// that are due, and the one way in which a link ends.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "kv_transfer/lane/control_connection.h"
#include "kv_transfer/lane/lane.h"
#include "kv_transfer/wire_transport.h"

namespace longhaul {

class LaneTransport;

// What a lane has finished, on the way from its threads to the loop.
class LaneEvents {
 public:
  explicit LaneEvents(int wake_fd) : wake_fd_(wake_fd) {}

  // A LaneDone that brings its status here, together with the tag of its message.
  static LaneDone Expect(const std::shared_ptr<LaneEvents>& events, TransferTag tag, int64_t bytes);

  struct Event {
    TransferTag tag = 0;
    int64_t bytes = 0;
    absl::Status status;
  };
  std::vector<Event> Take();

 private:
  const int wake_fd_;
  absl::Mutex mutex_;
  std::vector<Event> events_ ABSL_GUARDED_BY(mutex_);
};

class LaneLink : public Link {
 public:
  LaneLink(LaneTransport* transport, std::unique_ptr<Lane> lane);

  void Close() final { End(absl::CancelledError("the link was closed")); }
  std::string path() const final { return path_; }

  // Takes what has come from the peer and from the lane, and runs the callbacks that are due; true
  // when there was something to do.
  bool Poll();
  // Whether Poll has something to do that no file descriptor tells of.
  bool has_due() const { return !due_.empty(); }

 protected:
  ~LaneLink() override;  // after Shutdown

  // To be called first by the destructor of a subclass.
  void Shutdown();
  WireTransport::Drops& drops();
  // Whether operations may still be started; else they end with end_status().
  bool open() const { return end_status_.ok(); }
  const absl::Status& end_status() const { return end_status_; }
  Lane& lane() { return *lane_; }
  LaneDone Expect(TransferTag tag, int64_t bytes) {
    return LaneEvents::Expect(events_, tag, bytes);
  }
  void Finish(TransferDone done, absl::Status status) {
    due_.emplace_back(std::move(done), std::move(status));
  }
  // Queues the message; one before Attach waits for it.
  void Tell(LaneMessage message);
  void Attach(std::unique_ptr<ControlConnection> connection);
  // Ends the link by itself, with this reason for all its operations.
  void Fail(absl::Status reason) {
    if (open()) End(std::move(reason));
  }

  // A message of the peer. Error: Unavailable when it makes no sense.
  virtual absl::Status Take(LaneMessage message) = 0;
  // A message of the lane has ended. Not OK only after the end.
  virtual void Ended(const LaneEvents::Event& event) = 0;
  // The link has ended: ends every operation of which the lane holds nothing; the others end when
  // Ended has told of their last part.
  virtual void EndIdle() = 0;

 private:
  void End(absl::Status reason);
  void TakeEvents();

  LaneTransport* const transport_;
  const std::string path_;
  std::shared_ptr<LaneEvents> events_;
  std::unique_ptr<Lane> lane_;
  std::unique_ptr<ControlConnection> connection_;
  std::vector<LaneMessage> before_connection_;
  absl::Status end_status_;
  std::deque<std::pair<TransferDone, absl::Status>> due_;
};

}  // namespace longhaul
