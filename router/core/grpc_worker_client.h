// The gRPC makers of WorkerClient and StatusClient: one channel to one worker, which connects when
// it is needed and reconnects by itself.
#pragma once

#include <memory>
#include <string>

#include "common/engine/worker_client.h"
#include "common/runtime/loop.h"

namespace longhaul {

// `address`: "host:port". `owner_loop` must outlive the client and everything it started: gRPC's
// threads post to it until the last call has ended.
std::unique_ptr<WorkerClient> MakeGrpcWorkerClient(Loop* owner_loop, const std::string& address);
std::unique_ptr<StatusClient> MakeGrpcPrefillStatusClient(Loop* owner_loop,
                                                          const std::string& address);

}  // namespace longhaul
