// The start-up self-test of a transport: how fast a link of this host really is, and by which path.
// UCX falls back to slower paths silently (a missing permission for cross-memory attach, a
// container without shared memory), and nothing but a measurement tells.
#pragma once

#include <cstdint>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "common/model/kv_memory.h"
#include "common/runtime/loop.h"
#include "kv_transfer/transport.h"

namespace longhaul {

struct SelfTestOptions {
  int64_t message_bytes = 4 << 20;
  int messages = 64;
  int64_t timeout_us = 10'000'000;
  // Below this a warning is logged: decode would wait for the wire rather than for prefill. It says
  // what to look at.
  double floor_bytes_per_s = 1e9;
  const char* advice =
      "on one host check that shared memory and ptrace (cross-memory attach) are allowed; KV "
      "transfers will limit the time to the first token";
};

struct LinkSpeed {
  std::string path;
  double bytes_per_s = 0;
};

// Logs what a test of a transport whose pieces lie in `kind` came to: path and speed, and loudly
// what is wrong.
void ReportLinkSpeed(const std::string& transport, const SelfTestOptions& options, MemoryKind kind,
                     const absl::StatusOr<LinkSpeed>& outcome);

// Measures a link for host memory whose two ends both live on `transport`, and logs the outcome: a
// line with path and speed, or a warning when the link is slower than the floor, does not carry the
// bytes unchanged, or does not work at all. Both ends run on one thread, so two processes may be
// somewhat faster. Called on the transport's loop, `done` comes there; both outlive the test.
void RunSelfTest(Loop* loop, Transport* transport, SelfTestOptions options,
                 absl::AnyInvocable<void(absl::StatusOr<LinkSpeed>)> done);

// The same from another thread: waits for the outcome. For mains, before they serve.
absl::StatusOr<LinkSpeed> RunSelfTestAndWait(Loop* loop, Transport* transport,
                                             SelfTestOptions options);

}  // namespace longhaul
