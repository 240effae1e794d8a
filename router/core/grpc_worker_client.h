// The gRPC makers of WorkerClient and StatusClient: one channel to one worker, which connects when
// it is needed and reconnects by itself.
#pragma once

#include <memory>
#include <string>

#include "common/engine/worker_client.h"
#include "common/runtime/loop.h"

namespace longhaul {

// `address`: "host:port". Every call keeps `owner_loop` alive until gRPC has let go of it, which
// may be after the client is gone: its threads post there.
std::unique_ptr<WorkerClient> MakeGrpcWorkerClient(std::shared_ptr<Loop> owner_loop,
                                                   const std::string& address);
std::unique_ptr<StatusClient> MakeGrpcPrefillStatusClient(std::shared_ptr<Loop> owner_loop,
                                                          const std::string& address);

}  // namespace longhaul
