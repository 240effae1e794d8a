// The gRPC maker of PrefillClient: one channel to each prefill worker that is ever named, opened
// when needed.
#pragma once

#include <memory>

#include "common/engine/prefill_client.h"
#include "common/runtime/loop.h"

namespace longhaul {

// `owner_loop` must outlive the client and everything it started: gRPC's threads post to it until
// the last call has ended.
std::unique_ptr<PrefillClient> MakeGrpcPrefillClient(Loop* owner_loop);

}  // namespace longhaul
