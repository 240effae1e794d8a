// MemoryLaneMaker: lanes between two transports of one process, for the contract suite of
// LaneTransport. As strict as a lane may be: messages must meet in order and in equal pieces, and
// an end whose peer has aborted waits until it aborts itself.
#pragma once

#include <memory>
#include <string>

#include "kv_transfer/lane/lane.h"

namespace longhaul {

class MemoryLaneMaker final : public LaneMaker {
 public:
  std::string name() const override { return "memory-lane"; }
  absl::StatusOr<Offered> Offer() override;
  absl::StatusOr<std::unique_ptr<Lane>> Take(const std::string& address) override;
};

}  // namespace longhaul
