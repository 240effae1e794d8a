#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "router/policy/placement_base.h"
#include "router/policy/policy.h"

namespace longhaul {
namespace {

// Sorts by `key`, smallest first; equals keep their order. A key may look up a whole prompt in the
// prefix index, so each is asked for once.
template <typename Key>
void SortBy(std::vector<int>& indexes, Key key) {
  std::vector<std::pair<std::invoke_result_t<Key, int>, int>> keyed;
  keyed.reserve(indexes.size());
  for (const int index : indexes) keyed.emplace_back(key(index), index);
  std::stable_sort(keyed.begin(), keyed.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::transform(keyed.begin(), keyed.end(), indexes.begin(),
                 [](const auto& pair) { return pair.second; });
}

// The first of the smallest.
template <typename Key>
int SmallestBy(const std::vector<int>& indexes, Key key) {
  int smallest = indexes[0];
  auto smallest_key = key(smallest);
  for (size_t i = 1; i < indexes.size(); ++i) {
    if (auto other = key(indexes[i]); other < smallest_key) {
      smallest = indexes[i];
      smallest_key = other;
    }
  }
  return smallest;
}

auto LoadOf(const WorkerView& worker) {
  return std::make_pair(worker.requests(), worker.kv_used());
}

class RoundRobin final : public PlacementBase {
 public:
  using PlacementBase::PlacementBase;

 protected:
  int PickDecode(const RequestFacts&, const ClusterView&,
                 const std::vector<int>& candidates) override {
    return candidates[next_decode_++ % candidates.size()];
  }
  void OrderPrefill(const RequestFacts&, const ClusterView&, const Placement&,
                    std::vector<int>& candidates) override {
    std::rotate(candidates.begin(), candidates.begin() + next_prefill_++ % candidates.size(),
                candidates.end());
  }

 private:
  uint64_t next_decode_ = 0;
  uint64_t next_prefill_ = 0;
};

class LeastLoaded final : public PlacementBase {
 public:
  using PlacementBase::PlacementBase;

 protected:
  int PickDecode(const RequestFacts&, const ClusterView& view,
                 const std::vector<int>& candidates) override {
    return SmallestBy(candidates, [&](int i) { return LoadOf(view.decode[i]); });
  }
  void OrderPrefill(const RequestFacts&, const ClusterView& view, const Placement&,
                    std::vector<int>& candidates) override {
    SortBy(candidates, [&](int i) {
      return std::make_pair(view.prefill[i].wait_us(), view.prefill[i].requests());
    });
  }
};

// The worker with the longest cached prefix, unless that would pile requests up on it.
class PrefixAffinity final : public PlacementBase {
 public:
  using PlacementBase::PlacementBase;

 protected:
  int PickDecode(const RequestFacts& facts, const ClusterView& view,
                 const std::vector<int>& candidates) override {
    const int idlest = SmallestBy(candidates, [&](int i) { return LoadOf(view.decode[i]); });
    const int nearest = SmallestBy(candidates, [&](int i) {
      return std::make_pair(-CachedTokens(facts, view.decode[i]), LoadOf(view.decode[i]));
    });
    const int64_t idle_requests = view.decode[idlest].requests();
    const bool piled_up = view.decode[nearest].requests() >
                          static_cast<int64_t>(kImbalance * (idle_requests + 1)) + kSlackRequests;
    return piled_up ? idlest : nearest;
  }
  void OrderPrefill(const RequestFacts& facts, const ClusterView& view, const Placement& draft,
                    std::vector<int>& candidates) override {
    SortBy(candidates, [&](int i) { return PrefillDoneUs(facts, view.prefill[i], draft); });
  }

 private:
  static constexpr double kImbalance = 1.5;
  static constexpr int64_t kSlackRequests = 4;
};

// By what the prompt will cost. Prefill workers are split into a short and a long pool, in
// proportion to the predicted work of each class lately; an idle worker of the other pool is taken
// before a busy one of one's own. The decode worker is the one with the least predicted time for
// the missing prefix and the output.
class ByContextLength final : public PlacementBase {
 public:
  using PlacementBase::PlacementBase;

  void Placed(const RequestFacts& facts, const ClusterView& view, const Placement& placement,
              int64_t now_us) override {
    PlacementBase::Placed(facts, view, placement, now_us);
    const double decay =
        std::exp2(-static_cast<double>(std::max<int64_t>(now_us - work_at_us_, 0)) / kHalfLifeUs);
    work_at_us_ = now_us;
    short_work_us_ *= decay;
    long_work_us_ *= decay;
    (placement.is_long ? long_work_us_ : short_work_us_) += placement.predicted_us;
  }

 protected:
  int PickDecode(const RequestFacts& facts, const ClusterView& view,
                 const std::vector<int>& candidates) override {
    const int64_t output = std::min<int64_t>(facts.output_tokens_max, kExpectedOutputTokens);
    return SmallestBy(candidates, [&](int i) {
      const WorkerView& worker = view.decode[i];
      const int64_t cached = CachedTokens(facts, worker);
      const double prefill_us = worker.cost.PrefillUs(facts.prompt_tokens - cached, cached);
      const double step_us = worker.cost.DecodeStepUs(
          worker.requests() + 1, worker.kv_tokens_live() + facts.prompt_tokens);
      return std::make_tuple(worker.wait_us() + prefill_us + static_cast<double>(output) * step_us,
                             worker.requests(), worker.kv_used());
    });
  }

  void OrderPrefill(const RequestFacts& facts, const ClusterView& view, const Placement& draft,
                    std::vector<int>& candidates) override {
    const int workers = static_cast<int>(candidates.size());
    const int long_from = workers - LongWorkers(workers);
    std::vector<bool> own(view.prefill.size(), workers == 1);
    for (int i = 0; i < workers && workers > 1; ++i) {
      own[candidates[i]] = (i >= long_from) == draft.is_long;
    }
    const auto idle = [&](int i) {
      return view.prefill[i].wait_us() <= 0 && view.prefill[i].requests() == 0;
    };
    // Own and idle, other and idle, own, other.
    SortBy(candidates, [&](int i) {
      const int rank = idle(i) ? (own[i] ? 0 : 1) : (own[i] ? 2 : 3);
      return std::make_pair(rank, PrefillDoneUs(facts, view.prefill[i], draft));
    });
  }

 private:
  static constexpr double kHalfLifeUs = 30e6;
  static constexpr int64_t kExpectedOutputTokens = 256;

  // How many of `workers` belong to the long class now.
  int LongWorkers(int workers) const {
    if (workers < 2) return 0;
    const double total_us = short_work_us_ + long_work_us_;
    const double share = total_us > 0 ? long_work_us_ / total_us : 0.5;
    return std::clamp(static_cast<int>(std::lround(workers * share)), 1, workers - 1);
  }

  // Decayed sums of predicted prefill time placed.
  double short_work_us_ = 0;
  double long_work_us_ = 0;
  int64_t work_at_us_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(absl::string_view name, PolicyOptions options) {
  if (name == "round-robin") return std::make_unique<RoundRobin>(options);
  if (name == "least-loaded") return std::make_unique<LeastLoaded>(options);
  if (name == "prefix-affinity") return std::make_unique<PrefixAffinity>(options);
  if (name == "context-length") return std::make_unique<ByContextLength>(options);
  return absl::InvalidArgumentError(
      absl::StrCat("unknown policy \"", name,
                   "\"; use round-robin, least-loaded, prefix-affinity or context-length"));
}

}  // namespace longhaul
