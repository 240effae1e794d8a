// The gRPC face of a PrefillWorker.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/engine/prefill_client.h"
#include "common/runtime/loop.h"

namespace longhaul {

// Serves calls until destroyed. Any thread may own it, but not the worker's Loop: stopping waits
// for calls that the Loop must still answer.
class PrefillService {
 public:
  virtual ~PrefillService() = default;
  virtual const std::string& address() const = 0;
  // Refuses new calls, lets open ones end, cancels what is left after `deadline_us`.
  virtual void Stop(int64_t deadline_us) = 0;
};

// `worker` is touched on `loop` only; both outlive the service. Errors: see RpcServer::Start.
absl::StatusOr<std::unique_ptr<PrefillService>> StartPrefillService(const std::string& listen,
                                                                    Loop* loop,
                                                                    PrefillEndpoint* worker);

}  // namespace longhaul
