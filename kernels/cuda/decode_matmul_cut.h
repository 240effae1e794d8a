// Which part of a decode step's matrix product each CTA does. Pure arithmetic, the same on host and
// device.
//
// A product's numbers are defined by its parts: k is cut into `parts` runs of units (64 columns),
// each part is summed unit after unit, and the parts are added in their order. Parts depend on the
// weight's shape and the device, never on the rows of x: so does the order of every sum, and who
// computes what is free. With few rows of x a CTA takes some rows of the weight and all parts of
// them (`whole`): nothing is exchanged. With many, x would be read once for too few rows of the
// weight: a CTA takes `parts` times the rows, and one part of them (`split`).
#pragma once

#include <cstdint>

namespace longhaul {

struct DecodeMatmulCut {
  static constexpr uint32_t kUnitColumns = 64;  // 128 bytes: one row of a swizzled tile
  static constexpr uint32_t kTileRows = 128;    // of the weight that a CTA multiplies at a time
  static constexpr uint32_t kPartUnitsMin = 8;
  static constexpr uint32_t kBatchMax = 4;

  // One way to share out the rows of the weight.
  struct Rows {
    uint32_t groups = 0;     // of rows; a CTA each, or one for each part
    uint32_t rows = 0;       // of a group
    uint32_t tile_rows = 0;  // of a tile: a group is one tile or several
    uint32_t batch = 0;      // units that are copied together: a stage is about as large everywhere
  };

  uint32_t units = 0;  // of k
  uint32_t parts = 0;
  Rows whole;
  Rows split;

  // Part p is the units [PartFirst(p), PartFirst(p + 1)).
  constexpr uint32_t PartFirst(uint32_t part) const { return units * part / parts; }
};

constexpr DecodeMatmulCut::Rows ShareOutRows(uint32_t n, uint32_t ctas) {
  constexpr uint32_t kStep = 8;  // the swizzle's period
  constexpr uint32_t kTileRows = DecodeMatmulCut::kTileRows;
  const uint32_t least = (n + ctas * kStep - 1) / (ctas * kStep) * kStep;
  // Tiles of one size; the count that rounds the group's rows up least.
  DecodeMatmulCut::Rows rows;
  const uint32_t tiles_min = (least + kTileRows - 1) / kTileRows;
  for (uint32_t tiles = tiles_min; tiles <= tiles_min + 2; ++tiles) {
    const uint32_t tile_rows = (least + tiles * kStep - 1) / (tiles * kStep) * kStep;
    if (rows.rows != 0 && tiles * tile_rows >= rows.rows) continue;
    rows.rows = tiles * tile_rows;
    rows.tile_rows = tile_rows;
  }
  rows.groups = (n + rows.rows - 1) / rows.rows;
  const uint32_t batch = kTileRows / rows.tile_rows;
  rows.batch = batch < DecodeMatmulCut::kBatchMax ? batch : DecodeMatmulCut::kBatchMax;
  return rows;
}

// For a weight [n, k] on a device of `multiprocessors`.
constexpr DecodeMatmulCut CutDecodeMatmul(int64_t n, int64_t k, int multiprocessors) {
  DecodeMatmulCut cut;
  const uint32_t rows = static_cast<uint32_t>(n);
  const uint32_t ctas = static_cast<uint32_t>(multiprocessors);
  cut.units = static_cast<uint32_t>((k + DecodeMatmulCut::kUnitColumns - 1) /
                                    DecodeMatmulCut::kUnitColumns);
  cut.whole = ShareOutRows(rows, ctas);
  // As many parts as leave a group one tile.
  cut.parts = 1;
  cut.split = cut.whole;
  for (uint32_t parts = 2; parts <= ctas && parts * DecodeMatmulCut::kPartUnitsMin <= cut.units;
       ++parts) {
    const DecodeMatmulCut::Rows split = ShareOutRows(rows, ctas / parts);
    if (split.rows > DecodeMatmulCut::kTileRows) break;
    cut.parts = parts;
    cut.split = split;
  }
  return cut;
}

}  // namespace longhaul
