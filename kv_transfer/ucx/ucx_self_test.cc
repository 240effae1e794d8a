#include "kv_transfer/ucx/ucx_self_test.h"

#include <memory>

#include "common/runtime/thread_loop.h"
#include "kv_transfer/self_test_process.h"

namespace longhaul {

absl::StatusOr<LinkSpeed> RunUcxSelfTest(Loop* loop, UcxTransport* transport, KvMemory* memory,
                                         const std::vector<std::string>& arguments) {
  if (memory->kind() == MemoryKind::kHost) return RunSelfTestAndWait(loop, transport, {});
  return RunSelfTestWithProcess(loop, transport, memory, kDeviceSelfTest, arguments);
}

absl::Status SendForUcxSelfTest(int control_fd, const UcxOptions& options) {
  absl::StatusOr<std::unique_ptr<UcxTransport>> transport = UcxTransport::Make(options);
  if (!transport.ok()) {
    RefuseSelfTest(control_fd, transport.status());
    return transport.status();
  }
  ThreadLoop loop({.name = "transfer", .spin_us = 50}, transport->get());
  return ServeSelfTest(control_fd, &loop, transport->get(), options.memory);
}

}  // namespace longhaul
