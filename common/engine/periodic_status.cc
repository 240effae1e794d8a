#include "common/engine/periodic_status.h"

#include <algorithm>
#include <utility>

namespace longhaul {
namespace {

constexpr int64_t kPeriodMinUs = 10'000;  // what a careless watcher may cost

}  // namespace

struct PeriodicStatus::State {
  Loop* loop;
  int64_t period_us;
  Report report;
  StatusClient::OnStatus on_status;
  StatusClient::OnDone done;
  Loop::TimerId timer = 0;
  bool stopped = false;
};

PeriodicStatus::PeriodicStatus(Loop* loop, int64_t period_us, Report report,
                               StatusClient::OnStatus on_status, StatusClient::OnDone done)
    : state_(
          std::make_shared<State>(State{loop, std::max(period_us, kPeriodMinUs), std::move(report),
                                        std::move(on_status), std::move(done)})) {
  loop->Post([state = state_] { Tick(state); });
}

PeriodicStatus::~PeriodicStatus() {
  state_->stopped = true;
  state_->loop->CancelTimer(state_->timer);
}

void PeriodicStatus::Tick(const std::shared_ptr<State>& state) {
  if (state->stopped) return;
  std::optional<WorkerStatus> status = state->report();
  if (!status.has_value()) {
    state->stopped = true;
    state->done(absl::UnavailableError("the worker has stopped"));
    return;
  }
  state->timer = state->loop->PostAfter(state->period_us, [state] { Tick(state); });
  state->on_status(*std::move(status));
}

}  // namespace longhaul
