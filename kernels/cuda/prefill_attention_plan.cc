#include <algorithm>

#include "kernels/cuda/prefill_attention.h"

namespace longhaul {

PrefillAttentionPlan PlanPrefillAttention(const Batch& batch, absl::Span<const int32_t> tables) {
  constexpr int64_t kTile = PrefillAttentionItem::kRowTile;
  PrefillAttentionPlan plan;
  std::vector<PrefillAttentionItem>& items = plan.items;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const BatchSequence& sequence = batch.sequences[i];
    if (sequence.phase != Phase::kPrefill) continue;
    plan.keys += sequence.position + sequence.tokens;
    for (int64_t first = 0; first < sequence.tokens; first += kTile) {
      PrefillAttentionItem& item = items.emplace_back();
      item.row = static_cast<int32_t>(sequence.row + first);
      item.rows = static_cast<int32_t>(std::min(kTile, sequence.tokens - first));
      item.position = static_cast<int32_t>(sequence.position + first);
      item.table = tables[i];
    }
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const PrefillAttentionItem& a, const PrefillAttentionItem& b) {
                     return a.position + a.rows > b.position + b.rows;
                   });
  return plan;
}

}  // namespace longhaul
