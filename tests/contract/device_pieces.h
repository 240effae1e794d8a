// DevicePiecesTransport: runs the contract suite's cases, whose bytes lie on the host, over a
// transport of device memory. Every piece is copied to the device before it is sent and back after
// it was received, each at a place of its own, and when a link is gone nothing may have been
// written between the pieces of its receives, nor into them after their `done`.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kv_transfer/transport.h"
#include "tests/contract/piece_memory.h"

namespace longhaul {

class DevicePiecesTransport final : public Transport {
 public:
  // Both outlive it.
  DevicePiecesTransport(const PieceMemory* memory, Transport* carrier)
      : memory_(memory), carrier_(carrier) {}

  std::string name() const override { return carrier_->name(); }
  absl::StatusOr<Accepted> Accept() override;
  absl::StatusOr<std::unique_ptr<Link>> Connect(const std::string& address) override;

 private:
  friend class DevicePiecesLink;

  // Device memory that lives as long as the transport and is given out once.
  std::byte* Take(int64_t bytes);

  const PieceMemory* const memory_;
  Transport* const carrier_;
  std::vector<std::unique_ptr<DeviceBuffer>> chunks_;
  int64_t taken_bytes_ = 0;  // of the last chunk
};

}  // namespace longhaul
