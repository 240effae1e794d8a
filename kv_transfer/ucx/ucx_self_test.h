// The start-up self-test of UCX, by where a worker's KV lies: host memory needs no second process
// to be measured, a GPU's crosses to another process by paths of its own
// (kv_transfer/self_test_process.h). For mains, before they serve.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/runtime/loop.h"
#include "kv_transfer/self_test.h"
#include "kv_transfer/ucx/ucx_transport.h"

namespace longhaul {

// Measures and logs the speed of a link. `memory` is the transport's; `arguments` make this
// program, started again, reach the same memory. Waits. A worker whose link is slow or broken is
// still of use: that has been logged.
absl::StatusOr<LinkSpeed> RunUcxSelfTest(Loop* loop, UcxTransport* transport, KvMemory* memory,
                                         const std::vector<std::string>& arguments);

// The whole work of the process that was started for it with --self_test_fd=`control_fd`.
absl::Status SendForUcxSelfTest(int control_fd, const UcxOptions& options);

}  // namespace longhaul
