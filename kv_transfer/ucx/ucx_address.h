// The bytes that Accept of the UCX transport hands out: who listens, on which host, and UCX's own
// worker address. UCX trusts an address blindly, so ours carries a checksum and nothing else
// reaches UCX.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace longhaul {

struct UcxAddress {
  uint64_t link_id = 0;
  // Equal for two processes that can share memory and read each other's: same boot, same pid, ipc
  // and user namespaces.
  uint64_t host_id = 0;
  // The process and when it started, in clock ticks since boot: a pid alone is reused. Meaningful
  // on its own host.
  uint32_t pid = 0;
  uint64_t started_ticks = 0;
  // The longest segment that the receiver takes.
  uint64_t segment_bytes_max = 0;
  std::string worker;  // as UCX packed it
};

std::string EncodeUcxAddress(const UcxAddress& address);

// InvalidArgument for anything that EncodeUcxAddress of this version did not make.
absl::StatusOr<UcxAddress> DecodeUcxAddress(const std::string& bytes);

// This process as an address names it; link_id and worker are left empty. Reads /proc.
UcxAddress ThisProcess();

// Whether the process that made `address` still runs; only for addresses with our own host_id.
bool StillRuns(const UcxAddress& address);

}  // namespace longhaul
