// Which part of a decode step's matrix product each CTA does. Pure arithmetic, the same on host and
// device.
//
// The weight [n, k] is cut into tiles of 256 rows, a tile into units of 64 columns; units are
// numbered tile after tile. Each worker (two CTAs, one for each half of a tile's rows) takes one
// run of units, all runs equally long but for one unit, so no processor waits for a last wave
// (stream-K: Osama et al., "Stream-K: work-centric parallel decomposition for dense matrix-matrix
// multiplication on the GPU", 2023). A tile that several workers share is summed in the order of
// its columns. The cut depends on the weight's shape and the device, never on the rows of x: so
// does the order of every sum.
#pragma once

#include <cstdint>

namespace longhaul {

struct DecodeMatmulCut {
  static constexpr int kTileRows = 256;
  static constexpr int kHalfRows = 128;      // of a tile: one CTA
  static constexpr int kQuarters = 4;        // of a tile: one warpgroup, 64 rows
  static constexpr int kUnitColumns = 64;    // 128 bytes: one row of a swizzled tile
  static constexpr int kWorkerUnitsMin = 4;  // less would be all reduction

  uint32_t tiles = 0;
  uint32_t tile_units = 0;  // units of one tile
  uint32_t workers = 0;

  // Of the tiles of n rows.
  static constexpr int64_t Quarters(int64_t n) {
    return (n + kTileRows - 1) / kTileRows * kQuarters;
  }
  constexpr uint32_t units() const { return tiles * tile_units; }
  // The run of `worker` is [FirstUnit(worker), FirstUnit(worker + 1)).
  constexpr uint32_t FirstUnit(uint32_t worker) const { return units() * worker / workers; }
  constexpr uint32_t WorkerOf(uint32_t unit) const { return ((unit + 1) * workers - 1) / units(); }
};

// For a weight [n, k] on a device of `multiprocessors`.
constexpr DecodeMatmulCut CutDecodeMatmul(int64_t n, int64_t k, int multiprocessors) {
  DecodeMatmulCut cut;
  cut.tiles =
      static_cast<uint32_t>((n + DecodeMatmulCut::kTileRows - 1) / DecodeMatmulCut::kTileRows);
  cut.tile_units = static_cast<uint32_t>((k + DecodeMatmulCut::kUnitColumns - 1) /
                                         DecodeMatmulCut::kUnitColumns);
  const uint32_t useful =
      (cut.units() + DecodeMatmulCut::kWorkerUnitsMin - 1) / DecodeMatmulCut::kWorkerUnitsMin;
  const uint32_t pairs = multiprocessors > 1 ? static_cast<uint32_t>(multiprocessors) / 2 : 1;
  cut.workers = useful < pairs ? useful : pairs;
  return cut;
}

}  // namespace longhaul
