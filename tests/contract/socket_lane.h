// SocketLaneMaker: lanes over a TCP connection, within a process or between two of this host, for
// the tests of LaneTransport. As strict as a lane may be: messages must meet in order and in equal
// pieces, and an end whose peer is gone waits until it is aborted itself, as NCCL does.
#pragma once

#include <memory>
#include <string>

#include "kv_transfer/lane/lane.h"

namespace longhaul {

class SocketLaneMaker final : public LaneMaker {
 public:
  std::string name() const override { return "socket-lane"; }
  absl::StatusOr<Offered> Offer() override;
  absl::StatusOr<std::unique_ptr<Lane>> Take(const std::string& address) override;
};

}  // namespace longhaul
