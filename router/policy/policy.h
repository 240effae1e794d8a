// Policy: the door to "where does this request go?". Makers: round-robin, least-loaded,
// prefix-affinity, context-length (MakePolicy). Pure: no I/O, clock or thread; the same calls give
// the same answers. Lives on its owner's Loop.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/base/hash.h"
#include "router/policy/cluster_view.h"

namespace longhaul {

struct RequestFacts {
  int64_t prompt_tokens = 0;  // all that must be in the KV cache first, replayed output included
  int64_t output_tokens_max = 0;  // still to come
  int block_tokens = 16;
  absl::Span<const Hash128> prefix_chain;  // ChainOf the prompt
  absl::Span<const uint64_t> avoid;        // incarnations that failed this request already
};

struct Placement {
  int decode = -1;  // into ClusterView::decode
  std::vector<int>
      prefill;           // into ClusterView::prefill, best first; empty: the decode worker computes
  bool is_long = false;  // length class
  int64_t cached_tokens = 0;  // expected on the decode worker, of the prompt
  double predicted_us = 0;    // prefill time of the rest, without waiting
  double wait_us = 0;         // before it starts
};

struct Refusal {
  enum class Reason : uint8_t {
    kNoWorker,    // nobody is ready: 503
    kOverloaded,  // come back later: 429
    kNeverFits,   // longer than what any worker can hold: 400
  };
  Reason reason = Reason::kNoWorker;
  std::string message;              // with the numbers
  int64_t retry_after_us = 0;       // 0: retrying cannot help
  int64_t sequence_tokens_max = 0;  // kNeverFits: what would fit
};

struct PolicyOptions {
  // A prompt is long when its uncached tokens are predicted to take as long as this many at
  // position 0.
  int64_t long_tokens = 4096;
  // Refuse with Overloaded when the shortest predicted wait for a prefill is longer.
  double wait_limit_us = 60e6;
  // Refuse with Overloaded when every decode worker holds this many requests.
  int64_t requests_per_decode_max = 256;
  // Let a decode worker compute a prompt when no prefill worker is ready.
  bool local_prefill = true;
  // Let a decode worker compute a prompt that would take this many times as long as by itself on
  // the prefill workers, where the decode worker would have it sooner; 0: never.
  double spill_slowdown = 0;
  // Prefill workers named to the decode worker, in order.
  int prefill_choices = 3;
  // Memory of the prefix index, in blocks over all workers; 8 bytes each.
  int64_t prefix_blocks_max = 1 << 20;
};

class Policy {
 public:
  virtual ~Policy() = default;

  virtual std::variant<Placement, Refusal> Choose(const RequestFacts& facts,
                                                  const ClusterView& view, int64_t now_us) = 0;
  // The request went there: its prefix will be cached on those workers.
  virtual void Placed(const RequestFacts& facts, const ClusterView& view,
                      const Placement& placement, int64_t now_us) = 0;
};

// "round-robin", "least-loaded", "prefix-affinity" or "context-length"; the error names them.
absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(absl::string_view name, PolicyOptions options);

}  // namespace longhaul
