// The gRPC face of a DecodeWorker.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/engine/worker_client.h"
#include "common/rpc/rpc_server.h"
#include "common/runtime/loop.h"

namespace longhaul {

// `worker` is touched on `loop` only; both outlive the server. Errors: see RpcServer::Start.
absl::StatusOr<std::unique_ptr<RpcServer>> StartDecodeService(const std::string& listen, Loop* loop,
                                                              WorkerClient* worker);

}  // namespace longhaul
