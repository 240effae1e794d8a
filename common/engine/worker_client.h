// WorkerClient: the door from the router to a decode worker; StatusClient: the part of it that
// prefill workers have too. Makers: gRPC (router/core/grpc_worker_client.h), direct call across two
// loops (direct_worker_client.h). A decode worker in the same process implements it on its own
// Loop.
//
// Used on the owner's Loop only. Every callback comes on that Loop, never from inside the call that
// started it. `done` comes exactly once, after the last event, unless the Call was destroyed first:
// destroying the Call cancels the work, and no callback comes afterwards.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "common/proto/longhaul.pb.h"

namespace longhaul {

// Something under way. A Call may be destroyed from inside its own callbacks.
class WorkerCall {
 public:
  virtual ~WorkerCall() = default;
};

class StatusClient {
 public:
  using OnStatus = absl::AnyInvocable<void(WorkerStatus)>;
  using OnDone = absl::AnyInvocable<void(absl::Status)>;

  virtual ~StatusClient() = default;

  // A status at once and then one each `period_us`, until the stream breaks: `done` tells why
  // (never OK for a worker that is merely idle).
  virtual std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                                  OnDone done) = 0;
};

class WorkerClient : public StatusClient {
 public:
  using OnEvent = absl::AnyInvocable<void(GenerateEvent)>;

  // Tokens in order; an event with `finished` is the last and `done` follows with OK. Any other end
  // is an error. Unavailable, Aborted: the worker or its stream is lost, the same request may go
  // elsewhere. ResourceExhausted: this worker is full. The rest are the request's own.
  virtual std::unique_ptr<WorkerCall> Generate(GenerateRequest request, OnEvent on_event,
                                               OnDone done) = 0;
};

}  // namespace longhaul
