// PlacementBase: what all policies share: who may take a request at all, early refusals, the prefix
// estimate. A policy adds only its two choices.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "router/policy/policy.h"
#include "router/policy/prefix_index.h"

namespace longhaul {

class PlacementBase : public Policy {
 public:
  explicit PlacementBase(PolicyOptions options);

  std::variant<Placement, Refusal> Choose(const RequestFacts& facts, const ClusterView& view,
                                          int64_t now_us) final;
  void Placed(const RequestFacts& facts, const ClusterView& view, const Placement& placement,
              int64_t now_us) override;

 protected:
  // One of `candidates` (not empty, indexes into view.decode).
  virtual int PickDecode(const RequestFacts& facts, const ClusterView& view,
                         const std::vector<int>& candidates) = 0;
  // Puts `candidates` (not empty, indexes into view.prefill, in the order of the view) in order of
  // preference. `draft` holds everything but the prefill workers.
  virtual void OrderPrefill(const RequestFacts& facts, const ClusterView& view,
                            const Placement& draft, std::vector<int>& candidates) = 0;

  // Prompt tokens that `worker` probably has cached; the last token is always computed.
  int64_t CachedTokens(const RequestFacts& facts, const WorkerView& worker) const;
  // When the prompt would be done on prefill worker `worker`, waiting included.
  double PrefillDoneUs(const RequestFacts& facts, const WorkerView& worker,
                       const Placement& draft) const;
  const PolicyOptions& options() const { return options_; }

 private:
  // What the prompt would take on prefill worker `worker` by itself.
  double PrefillAloneUs(const RequestFacts& facts, const WorkerView& worker,
                        const Placement& draft) const;
  // Whether decode worker `decode` should compute a prompt, in `here_us` by itself, instead of
  // `prefill`, which takes `alone_us`.
  bool Spills(const WorkerView& decode, const WorkerView& prefill, double alone_us,
              double here_us) const;

  const PolicyOptions options_;
  PrefixIndex index_;
};

}  // namespace longhaul
