#include "common/engine/direct_prefill_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/engine/crossing_call.h"

namespace longhaul {
namespace {

class DirectCall final : public PrefillCall {
 public:
  using Crossing = CrossingCall<PrefillEvent, PrefillCall>;
  DirectCall(Loop* owner_loop, Loop* worker_loop, OnPrefillEvent on_event, OnPrefillDone done,
             Crossing::Start start)
      : crossing_(owner_loop, worker_loop, std::move(on_event), std::move(done), std::move(start)) {
  }

  void Grant(int chunks) override {
    crossing_.OnFar([chunks](PrefillCall& call) { call.Grant(chunks); });
  }

 private:
  Crossing crossing_;
};

class NoCall final : public PrefillCall {
 public:
  void Grant(int) override {}
};

}  // namespace

std::unique_ptr<PrefillCall> DirectPrefillClient::Prefill(const std::string& address,
                                                          PrefillCommand::Open open,
                                                          OnPrefillEvent on_event,
                                                          OnPrefillDone done) {
  const auto worker = workers_.find(address);
  if (worker == workers_.end()) {
    owner_loop_->Post([address, done = std::move(done)]() mutable {
      done(absl::UnavailableError(absl::StrCat("no prefill worker is called ", address)));
    });
    return std::make_unique<NoCall>();
  }
  PrefillEndpoint* const endpoint = worker->second.endpoint;
  return std::make_unique<DirectCall>(
      owner_loop_, worker->second.loop, std::move(on_event), std::move(done),
      [endpoint, open = std::move(open)](OnPrefillEvent event, OnPrefillDone end) mutable {
        return endpoint->Prefill(std::move(open), std::move(event), std::move(end));
      });
}

}  // namespace longhaul
