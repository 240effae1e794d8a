// The self-test between two processes: device memory crosses from process to process by other paths
// than within one (cuda_ipc has no part in the latter), so a process of its own sends. It is this
// program, run again for this purpose alone.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/kv_memory.h"
#include "common/runtime/loop.h"
#include "kv_transfer/self_test.h"
#include "kv_transfer/transport.h"

namespace longhaul {

// What to measure device memory with: messages as long as a long prompt's, and a floor that any
// path through the host stays below (a PCIe 5 card moves 55 GB/s at best, and that twice).
inline constexpr SelfTestOptions kDeviceSelfTest = {
    .message_bytes = 64 << 20,
    .messages = 64,
    .timeout_us = 20'000'000,
    .floor_bytes_per_s = 100e9,
    .advice =
        "the GPU's memory is taken through the host instead of by cuda_ipc: give the workers "
        "of one host the same pid and ipc namespaces and the same GPUs, and use the UCX of "
        "PyPI's libucx-cu13; KV transfers will limit the time to the first token",
};

// Starts this program again with `arguments` and "--self_test_fd=N", and takes what it sends into
// `memory`, which holds the transport's pieces; logs the outcome as RunSelfTest does. Waits; for
// mains, before they serve. All outlive the call. Error: also what the other process said.
absl::StatusOr<LinkSpeed> RunSelfTestWithProcess(Loop* loop, Transport* transport, KvMemory* memory,
                                                 SelfTestOptions options,
                                                 const std::vector<std::string>& arguments);

// That process's whole work: sends what it is told to by `control_fd`, the number it was given, and
// returns when the other side has it. `loop` and `memory` are the transport's.
absl::Status ServeSelfTest(int control_fd, Loop* loop, Transport* transport, KvMemory* memory);

// The same when there is no transport: tells why, so that nobody waits.
void RefuseSelfTest(int control_fd, const absl::Status& reason);

}  // namespace longhaul
