#include "tests/contract/peer_wire.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "kv_transfer/lane/lane_transport.h"
#include "kv_transfer/nccl/nccl_lane.h"
#include "kv_transfer/ucx/ucx_transport.h"
#include "tests/contract/socket_lane.h"

namespace longhaul {
namespace {

using Made = absl::StatusOr<std::unique_ptr<WireTransport>>;

Made MakeUcx(KvMemory* memory) { return UcxTransport::Make({.memory = memory}); }

Made MakeUcxOverTcp(KvMemory* memory) {
  return UcxTransport::Make({.transports = "tcp", .network_only = true, .memory = memory});
}

Made MakeLane(KvMemory*) {
  return LaneTransport::Make(std::make_unique<SocketLaneMaker>(), "127.0.0.1");
}

Made MakeNccl(KvMemory* memory) {
  LH_ASSIGN_OR_RETURN(std::unique_ptr<LaneMaker> lanes, MakeNcclLanes({.memory = memory}));
  return LaneTransport::Make(std::move(lanes), "127.0.0.1");
}

}  // namespace

const std::vector<PeerWire>& PeerWires() {
  constexpr int64_t kCudaMessageBytes = 64 << 20;
  static const auto* const wires = new std::vector<PeerWire>{
      {.name = "UcxSharedMemory", .make = MakeUcx, .path = "sysv", .refuses_the_dead = true},
      {.name = "UcxTcp", .make = MakeUcxOverTcp, .path = "tcp"},
      {.name = "UcxCuda",
       .make = MakeUcx,
       .kind = MemoryKind::kCuda,
       .message_bytes = kCudaMessageBytes,
       .path = "cuda_ipc",
       .bytes_per_s_min = 100e9,
       .refuses_the_dead = true},
      {.name = "UcxTwoGpus",
       .make = MakeUcx,
       .kind = MemoryKind::kCuda,
       .peer_device = 1,
       .message_bytes = kCudaMessageBytes,
       .path = "cuda_ipc",
       .bytes_per_s_min = 100e9,
       .refuses_the_dead = true},
      {.name = "Lane", .make = MakeLane, .path = "socket", .tells_of_death = true},
      {.name = "NcclCuda",
       .make = MakeNccl,
       .kind = MemoryKind::kCuda,
       .peer_device = 1,
       .message_bytes = kCudaMessageBytes,
       .path = "nccl",
       .bytes_per_s_min = 60e9,
       .tells_of_death = true},
  };
  return *wires;
}

const PeerWire& PeerWireOf(const std::string& name) {
  const auto found = std::find_if(PeerWires().begin(), PeerWires().end(),
                                  [&](const PeerWire& wire) { return wire.name == name; });
  LH_CHECK(found != PeerWires().end(), absl::StrCat("there is no wire ", name));
  return *found;
}

}  // namespace longhaul
