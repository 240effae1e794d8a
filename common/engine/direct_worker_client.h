// DirectWorkerClient: a WorkerClient for a worker of the same process. It carries calls to the
// worker's Loop and callbacks back to the owner's; both may be the same Loop.
#pragma once

#include <memory>

#include "common/engine/worker_client.h"
#include "common/runtime/loop.h"

namespace longhaul {

// Both loops and `worker` (touched on `worker_loop` only) must outlive the client and the tasks
// that it posted.
std::unique_ptr<WorkerClient> MakeDirectWorkerClient(Loop* owner_loop, Loop* worker_loop,
                                                     WorkerClient* worker);
// The same for a worker that only reports its status: a prefill worker.
std::unique_ptr<StatusClient> MakeDirectStatusClient(Loop* owner_loop, Loop* worker_loop,
                                                     StatusClient* worker);

}  // namespace longhaul
