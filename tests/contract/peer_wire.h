// PeerWire: a wire as both processes of a test know it: which transport, over which memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/kv_memory.h"
#include "kv_transfer/wire_transport.h"

namespace longhaul {

struct PeerWire {
  std::string name;
  absl::StatusOr<std::unique_ptr<WireTransport>> (*make)(KvMemory* memory);
  MemoryKind kind = MemoryKind::kHost;
  int peer_device = 0;              // the GPU of the peer's memory; the test's own is GPU 0's
  int64_t message_bytes = 4 << 20;  // so that a message takes some hundred us at least
  std::string path = {};            // in Link::path
  double bytes_per_s_min = 1e6;     // any wire of its kind that is not broken
  bool refuses_the_dead = false;    // Connect sees that the address's process is gone
  bool tells_of_death = false;      // a killed peer is an error, without Close
};

const std::vector<PeerWire>& PeerWires();
const PeerWire& PeerWireOf(const std::string& name);

}  // namespace longhaul
