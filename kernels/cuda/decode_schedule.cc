#include "kernels/cuda/decode_schedule.h"

#include <algorithm>

namespace longhaul {

void PlanDecode(absl::Span<const DecodeRow> rows, DecodeSchedule* schedule) {
  std::vector<DecodeItem>& items = schedule->items;
  items.clear();
  schedule->slots = 0;
  // Whole parts first; what is left of each row behind them.
  const auto row_item = [&](size_t row, int32_t slot) {
    DecodeItem item;
    item.row = static_cast<int32_t>(row);
    item.keys = rows[row].keys;
    item.table = rows[row].table;
    item.settled = rows[row].settled;
    item.parts = 1;
    item.slot = slot;
    return item;
  };
  for (size_t row = 0; row < rows.size(); ++row) {
    DecodeItem item = row_item(row, schedule->slots);
    const int32_t whole = item.keys / kDecodePartKeys;
    for (; item.first_part < whole; ++item.first_part) items.push_back(item);
    const int32_t parts = DecodeParts(item.keys);
    if (parts > 1) schedule->slots += parts;
  }
  const size_t whole_parts = items.size();
  int32_t slot = 0;
  for (size_t row = 0; row < rows.size(); ++row) {
    DecodeItem item = row_item(row, slot);
    item.first_part = item.keys / kDecodePartKeys;
    if (item.keys % kDecodePartKeys != 0) items.push_back(item);
    const int32_t parts = DecodeParts(item.keys);
    if (parts > 1) slot += parts;
  }
  std::sort(items.begin() + whole_parts, items.end(), [](const DecodeItem& a, const DecodeItem& b) {
    const int32_t rest_a = a.keys % kDecodePartKeys;
    const int32_t rest_b = b.keys % kDecodePartKeys;
    return rest_a != rest_b ? rest_a > rest_b : a.row < b.row;
  });
}

}  // namespace longhaul
