// The gRPC maker of PrefillClient: one channel to each prefill worker that is ever named, opened
// when needed.
#pragma once

#include <memory>

#include "common/engine/prefill_client.h"
#include "common/runtime/loop.h"

namespace longhaul {

// Every call keeps `owner_loop` alive until gRPC has let go of it, which may be after the client is
// gone: its threads post there.
std::unique_ptr<PrefillClient> MakeGrpcPrefillClient(std::shared_ptr<Loop> owner_loop);

}  // namespace longhaul
