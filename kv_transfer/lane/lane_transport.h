// LaneTransport: the maker of the Transport door over lanes, which know neither tags nor
// cancellation (NCCL). A TCP connection beside each lane carries what they lack: which messages are
// wanted, which part of which comes next, and the news that the other process is gone. Bytes go
// over the lane only, and only once both ends have agreed on them, so nothing waits in the wire.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kv_transfer/lane/control_connection.h"
#include "kv_transfer/lane/lane.h"
#include "kv_transfer/wire_transport.h"

namespace longhaul {

class LaneLink;
class LaneReceiver;

class LaneTransport final : public WireTransport {
 public:
  // `host`: the numeric address of this machine that the senders reach. Errors: InvalidArgument
  // when it is none, Unavailable when it cannot be listened at.
  static absl::StatusOr<std::unique_ptr<LaneTransport>> Make(std::unique_ptr<LaneMaker> lanes,
                                                             const std::string& host);
  ~LaneTransport() override;

  std::string name() const override { return lanes_->name(); }
  absl::StatusOr<Accepted> Accept() override;
  absl::StatusOr<std::unique_ptr<Link>> Connect(const std::string& address) override;

  bool Poll() override;
  int WaitFd() const override { return epoll_fd_; }
  bool ArmWait() override;

 private:
  friend class LaneLink;

  // Connections that have not said yet which link they are for; the oldest is closed beyond that.
  static constexpr size_t kUnknownMax = 256;

  LaneTransport(std::unique_ptr<LaneMaker> lanes, std::string host, Listener listener);

  int wake_fd() const { return wake_fd_; }
  void Add(LaneLink* link) { links_.push_back(link); }
  void Remove(LaneLink* link);
  void TakeConnections();
  // False when the connection is of no use any more or has found its link.
  bool StaysUnknown(std::unique_ptr<ControlConnection>& connection);

  const std::unique_ptr<LaneMaker> lanes_;
  const std::string host_;
  const Listener listener_;
  const int epoll_fd_;
  const int wake_fd_;
  std::deque<std::unique_ptr<ControlConnection>> unknown_;
  absl::flat_hash_map<uint64_t, LaneReceiver*> waiting_;  // for their sender, by secret
  std::vector<LaneLink*> links_;                          // null: gone during Poll
};

}  // namespace longhaul
