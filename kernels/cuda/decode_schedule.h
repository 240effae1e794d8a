// Who does what in a decode step's attention: the rows' keys, cut into items that the kernel's
// thread blocks take one after the other (decode_attention.h). Pure; planned on the host once a
// step, for all layers.
//
// Keys are cut at fixed positions, into parts of kDecodePartKeys, whatever else is in the batch: a
// part's partial result, and the order in which parts are folded together, depend on the row's
// length alone. The schedule only decides when a part is computed. Items are taken from a queue in
// their order, so the longest come first and what is left at the end is short: Graham's list
// scheduling ("Bounds on multiprocessing timing anomalies", 1969), with durations that need not be
// known.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace longhaul {

// Keys of a part. A row of one part is finished by whoever computes it; of longer rows every part
// leaves a partial result.
constexpr int kDecodePartKeys = 512;
// Parts are folded in spans of so many, then the spans: whoever finishes the last part of a span
// folds it, and a row of a million keys still ends with a fold of 128.
constexpr int kDecodeSpanParts = 16;

// A decode row: one query token that attends to `keys` positions, its own the last.
struct DecodeRow {
  int32_t keys = 0;
  int32_t table = 0;    // where its block table starts among the step's block tables
  int32_t settled = 0;  // positions [0, settled) were in the pool before the step; less than `keys`
};

// Parts [first_part, first_part + parts) of a row, for every kv head. The device reads this struct.
struct DecodeItem {
  int32_t row = 0;
  int32_t keys = 0;  // of the whole row
  int32_t table = 0;
  int32_t settled = 0;
  int32_t first_part = 0;
  int32_t parts = 0;
  int32_t slot = 0;  // where the row's partial results begin, one slot a part
};

struct DecodeSchedule {
  std::vector<DecodeItem> items;
  int32_t slots = 0;  // partial results that the step needs room for
};

constexpr int32_t DecodeParts(int32_t keys) {
  return (keys + kDecodePartKeys - 1) / kDecodePartKeys;
}

// Room to reserve for any step of at most `rows` rows with `keys` keys in all.
constexpr int64_t DecodeItemsMax(int64_t rows, int64_t keys) {
  return keys / kDecodePartKeys + rows;
}

// Replaces *schedule; its memory is kept. Rows without keys have no items: their output is not
// written.
void PlanDecode(absl::Span<const DecodeRow> rows, DecodeSchedule* schedule);

}  // namespace longhaul
