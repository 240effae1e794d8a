#include "router/policy/placement_base.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace longhaul {
namespace {

// Waiting less than this before asking again only adds load.
constexpr int64_t kRetryAfterMinUs = 1'000'000;

bool Contains(absl::Span<const uint64_t> set, uint64_t value) {
  return std::find(set.begin(), set.end(), value) != set.end();
}

std::string WhyNoneReady(absl::string_view role, const std::vector<WorkerView>& workers) {
  if (workers.empty()) return absl::StrCat("no ", role, " worker is configured");
  std::string why = absl::StrCat("none of ", workers.size(), " ", role, " worker",
                                 workers.size() == 1 ? "" : "s", " is ready:");
  for (const WorkerView& worker : workers) {
    absl::StrAppend(&why, " ", worker.name, " (",
                    worker.ready ? "failed this request" : worker.unready_why, ")");
  }
  return why;
}

Refusal NoWorker(std::string why) {
  return {Refusal::Reason::kNoWorker, std::move(why), kRetryAfterMinUs, 0};
}

}  // namespace

PlacementBase::PlacementBase(PolicyOptions options)
    : options_(options), index_(options.prefix_blocks_max) {}

std::variant<Placement, Refusal> PlacementBase::Choose(const RequestFacts& facts,
                                                       const ClusterView& view, int64_t now_us) {
  const int64_t tokens = facts.prompt_tokens + facts.output_tokens_max;
  bool any_ready = false;
  int64_t longest = 0;
  int64_t fewest_requests = std::numeric_limits<int64_t>::max();
  std::vector<int> fitting;
  for (int i = 0; i < static_cast<int>(view.decode.size()); ++i) {
    const WorkerView& worker = view.decode[i];
    if (!worker.ready) continue;
    any_ready = true;
    longest = std::max(longest, worker.sequence_tokens_max());
    if (tokens > worker.sequence_tokens_max()) continue;
    if (Contains(facts.avoid, worker.incarnation)) continue;
    fewest_requests = std::min(fewest_requests, worker.requests());
    fitting.push_back(i);
  }
  if (any_ready && tokens > longest) {
    return Refusal{Refusal::Reason::kNeverFits,
                   absl::StrCat("the request needs KV cache for ", tokens, " tokens (",
                                facts.prompt_tokens, " of prompt, up to ", facts.output_tokens_max,
                                " of output); the largest decode worker holds ", longest,
                                "; shorten the prompt or lower max_tokens"),
                   0, longest};
  }
  if (fitting.empty()) return NoWorker(WhyNoneReady("decode", view.decode));
  if (fewest_requests >= options_.requests_per_decode_max) {
    return Refusal{Refusal::Reason::kOverloaded,
                   absl::StrCat("every decode worker has at least ", fewest_requests,
                                " requests; the limit is ", options_.requests_per_decode_max),
                   kRetryAfterMinUs, 0};
  }
  std::erase_if(fitting, [&](int i) {
    return view.decode[i].requests() >= options_.requests_per_decode_max;
  });

  Placement placement;
  placement.decode = PickDecode(facts, view, fitting);
  const WorkerView& decode = view.decode[placement.decode];
  placement.cached_tokens = CachedTokens(facts, decode);

  std::vector<int> prefill;
  for (int i = 0; i < static_cast<int>(view.prefill.size()); ++i) {
    const WorkerView& worker = view.prefill[i];
    if (worker.ready && worker.fingerprint_key == decode.fingerprint_key &&
        facts.prompt_tokens <= worker.sequence_tokens_max()) {
      prefill.push_back(i);
    }
  }
  if (prefill.empty() && !options_.local_prefill) {
    return NoWorker(WhyNoneReady("prefill", view.prefill));
  }
  const CostModel& cost = prefill.empty() ? decode.cost : view.prefill[prefill[0]].cost;
  placement.predicted_us =
      cost.PrefillUs(facts.prompt_tokens - placement.cached_tokens, placement.cached_tokens);
  placement.is_long = placement.predicted_us > cost.PrefillUs(options_.long_tokens, 0);
  placement.wait_us = decode.wait_us(placement.predicted_us);
  if (!prefill.empty()) {
    OrderPrefill(facts, view, placement, prefill);
    if (static_cast<int>(prefill.size()) > options_.prefill_choices) {
      prefill.resize(std::max(options_.prefill_choices, 1));
    }
    const WorkerView& first = view.prefill[prefill[0]];
    const double alone_us = PrefillAloneUs(facts, first, placement);
    if (!Spills(decode, first, alone_us, placement.predicted_us)) {
      placement.wait_us = first.wait_us(alone_us);
      placement.prefill = std::move(prefill);
    }
  }
  if (placement.wait_us > options_.wait_limit_us) {
    const int64_t excess_us = static_cast<int64_t>(placement.wait_us - options_.wait_limit_us);
    return Refusal{Refusal::Reason::kOverloaded,
                   absl::StrFormat("the prompt would wait %.1f s before its prefill; the limit is "
                                   "%.1f s",
                                   placement.wait_us / 1e6, options_.wait_limit_us / 1e6),
                   std::max(excess_us, kRetryAfterMinUs), 0};
  }
  return placement;
}

void PlacementBase::Placed(const RequestFacts& facts, const ClusterView& view,
                           const Placement& placement, int64_t now_us) {
  index_.Add(view.decode[placement.decode].incarnation, facts.prefix_chain);
  if (!placement.prefill.empty()) {
    index_.Add(view.prefill[placement.prefill[0]].incarnation, facts.prefix_chain);
  }
}

int64_t PlacementBase::CachedTokens(const RequestFacts& facts, const WorkerView& worker) const {
  const int64_t tokens = index_.Match(worker.incarnation, facts.prefix_chain) * facts.block_tokens;
  return std::max(std::min(tokens, facts.prompt_tokens - 1), int64_t{0});
}

double PlacementBase::PrefillAloneUs(const RequestFacts& facts, const WorkerView& worker,
                                     const Placement& draft) const {
  const int64_t cached = std::max(draft.cached_tokens, CachedTokens(facts, worker));
  return worker.cost.PrefillUs(facts.prompt_tokens - cached, cached);
}

double PlacementBase::PrefillDoneUs(const RequestFacts& facts, const WorkerView& worker,
                                    const Placement& draft) const {
  const double alone_us = PrefillAloneUs(facts, worker, draft);
  return worker.wait_us(alone_us) + alone_us;
}

// The decode worker's own prediction is a guess until it has computed a prompt: the prefill
// worker's counts, which has.
bool PlacementBase::Spills(const WorkerView& decode, const WorkerView& prefill, double alone_us,
                           double here_us) const {
  if (options_.spill_slowdown <= 0 || decode.prompt_share <= 0) return false;
  const double there_us = prefill.wait_us(alone_us) + alone_us;
  if (there_us < options_.spill_slowdown * alone_us) return false;
  return (decode.wait_us() + here_us) / decode.prompt_share < there_us;
}

}  // namespace longhaul
