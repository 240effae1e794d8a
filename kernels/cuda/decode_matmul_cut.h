// Which part of a decode step's matrix product each CTA does. Pure arithmetic, the same on host and
// device.
//
// The rows of the weight [n, k] are shared out among groups, k among the parts of a group: a
// cluster of CTAs, each of which multiplies all rows of the group by its part of k. k is counted in
// units of 64 columns. A part starts at a unit of its group's own and wraps around, so that at any
// time the groups read different columns of memory. Sums go over a part's units in that order, then
// over the parts in theirs. All of it depends on the weight's shape and the device, never on the
// rows of x.
#pragma once

#include <cstdint>

namespace longhaul {

struct DecodeMatmulCut {
  static constexpr uint32_t kUnitColumns = 64;  // 128 bytes: one row of a swizzled tile
  static constexpr uint32_t kTileRows = 128;    // of the weight that a CTA multiplies at a time
  static constexpr uint32_t kPartsMax = 4;
  static constexpr uint32_t kPartUnitsMin = 8;
  static constexpr uint32_t kStagger = 5;  // units between the starts of neighbouring groups

  uint32_t units = 0;      // of k
  uint32_t parts = 0;      // 1, 2 or 4
  uint32_t groups = 0;     // of rows
  uint32_t rows = 0;       // of a group
  uint32_t tile_rows = 0;  // of a tile: a group is one tile, or several where it has one part

  // Part p is the units [PartFirst(p), PartFirst(p + 1)).
  constexpr uint32_t PartFirst(uint32_t part) const { return units * part / parts; }
  // The unit of a part that a group starts with.
  constexpr uint32_t PartStart(uint32_t part, uint32_t group) const {
    const uint32_t first = PartFirst(part);
    return first + group * kStagger % (PartFirst(part + 1) - first);
  }
};

// For a weight [n, k] on a device of `multiprocessors`.
constexpr DecodeMatmulCut CutDecodeMatmul(int64_t n, int64_t k, int multiprocessors) {
  constexpr uint32_t kStep = 8;  // rows, the swizzle's period
  const uint32_t all_rows = static_cast<uint32_t>(n);
  DecodeMatmulCut cut;
  cut.units = static_cast<uint32_t>((k + DecodeMatmulCut::kUnitColumns - 1) /
                                    DecodeMatmulCut::kUnitColumns);
  // As many parts as leave a group one tile: fewer rows would need x as often for less work.
  for (uint32_t parts = 1; parts <= DecodeMatmulCut::kPartsMax; parts *= 2) {
    if (parts > 1 && parts * DecodeMatmulCut::kPartUnitsMin > cut.units) break;
    const uint32_t groups_max = static_cast<uint32_t>(multiprocessors) / parts;
    if (groups_max == 0) break;
    const uint32_t least = (all_rows + groups_max * kStep - 1) / (groups_max * kStep) * kStep;
    const uint32_t tiles_min =
        (least + DecodeMatmulCut::kTileRows - 1) / DecodeMatmulCut::kTileRows;
    if (parts > 1 && tiles_min > 1) break;
    // Tiles of one size; the count that rounds the group's rows up least.
    cut.parts = parts;
    cut.rows = 0;
    for (uint32_t tiles = tiles_min; tiles <= (parts > 1 ? tiles_min : tiles_min + 2); ++tiles) {
      const uint32_t tile_rows = (least + tiles * kStep - 1) / (tiles * kStep) * kStep;
      if (cut.rows != 0 && tiles * tile_rows >= cut.rows) continue;
      cut.rows = tiles * tile_rows;
      cut.tile_rows = tile_rows;
    }
    cut.groups = (all_rows + cut.rows - 1) / cut.rows;
  }
  return cut;
}

}  // namespace longhaul
