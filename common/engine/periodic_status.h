// PeriodicStatus: a worker's side of WatchStatus. Reports at once and then every period, until it
// is destroyed or the worker has nothing to say any more. Lives on the worker's Loop.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/functional/any_invocable.h"
#include "common/engine/worker_client.h"
#include "common/runtime/loop.h"

namespace longhaul {

class PeriodicStatus final : public WorkerCall {
 public:
  using Report = absl::AnyInvocable<std::optional<WorkerStatus>()>;

  // `report` gives nullopt when the worker is gone; then `done` comes with Unavailable.
  PeriodicStatus(Loop* loop, int64_t period_us, Report report, StatusClient::OnStatus on_status,
                 StatusClient::OnDone done);
  ~PeriodicStatus() override;

 private:
  struct State;
  static void Tick(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;
};

}  // namespace longhaul
