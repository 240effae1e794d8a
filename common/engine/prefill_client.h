// PrefillClient: the door from a decode worker to prefill workers. Makers: gRPC
// (decode_worker/grpc_prefill_client.h), direct call across two loops (direct_prefill_client.h); a
// prefill worker implements PrefillEndpoint on its own Loop.
//
// Used on the owner's Loop only. Every callback comes on that Loop, never from inside the call that
// started it. `done` comes exactly once, after the last event, unless the PrefillCall was destroyed
// first: destroying it cancels the prompt, and no callback comes afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "common/engine/worker_client.h"
#include "common/proto/longhaul.pb.h"

namespace longhaul {

// A prompt under way. May be destroyed from inside its own callbacks.
class PrefillCall {
 public:
  virtual ~PrefillCall() = default;
  // Receives are posted for all chunks below `chunks`.
  virtual void Grant(int chunks) = 0;
};

using OnPrefillEvent = absl::AnyInvocable<void(PrefillEvent)>;
using OnPrefillDone = absl::AnyInvocable<void(absl::Status)>;

class PrefillEndpoint : public StatusClient {
 public:
  // Errors in `done`: Unavailable or Aborted, the worker or the stream is lost; ResourceExhausted,
  // it is full; FailedPrecondition, the fingerprints differ; InvalidArgument, the prompt cannot be
  // served here.
  virtual std::unique_ptr<PrefillCall> Prefill(PrefillCommand::Open open, OnPrefillEvent on_event,
                                               OnPrefillDone done) = 0;
};

class PrefillClient {
 public:
  virtual ~PrefillClient() = default;
  // The same at the worker that `address` names.
  virtual std::unique_ptr<PrefillCall> Prefill(const std::string& address,
                                               PrefillCommand::Open open, OnPrefillEvent on_event,
                                               OnPrefillDone done) = 0;
};

}  // namespace longhaul
