// Every element of a weight belongs to one CTA in both ways of cutting it, whatever the shape and
// the device.
#include "kernels/cuda/decode_matmul_cut.h"

#include <gtest/gtest.h>

namespace longhaul {
namespace {

using Cut = DecodeMatmulCut;

void ExpectRowsCovered(const Cut::Rows& rows, int64_t n, uint32_t ctas) {
  EXPECT_GE(int64_t{rows.groups} * rows.rows, n);
  EXPECT_LT(int64_t{rows.groups - 1} * rows.rows, n);
  EXPECT_LE(rows.groups, ctas);
  EXPECT_EQ(rows.rows % rows.tile_rows, 0u);
  EXPECT_EQ(rows.tile_rows % 8, 0u);
  EXPECT_LE(rows.tile_rows, Cut::kTileRows);
  EXPECT_GE(rows.batch, 1u);
  EXPECT_LE(rows.batch * rows.tile_rows, Cut::kTileRows);
}

TEST(DecodeMatmulCutTest, CoversEveryRowAndEveryUnit) {
  for (const int multiprocessors : {1, 2, 7, 78, 114, 132, 144}) {
    for (const int64_t n : {1, 64, 255, 256, 257, 576, 4096, 6144, 28672, 49152, 128256}) {
      for (const int64_t k : {8, 64, 72, 576, 1536, 4096, 14336}) {
        const Cut cut = CutDecodeMatmul(n, k, multiprocessors);
        ExpectRowsCovered(cut.whole, n, multiprocessors);
        ExpectRowsCovered(cut.split, n, multiprocessors / cut.parts);
        EXPECT_EQ(cut.PartFirst(0), 0u);
        EXPECT_EQ(cut.PartFirst(cut.parts), cut.units);
        EXPECT_GE(int64_t{cut.units} * Cut::kUnitColumns, k);
        for (uint32_t part = 0; part < cut.parts; ++part) {
          EXPECT_LT(cut.PartFirst(part), cut.PartFirst(part + 1));
        }
        if (cut.parts > 1) EXPECT_EQ(cut.split.tile_rows, cut.split.rows);
      }
    }
  }
}

TEST(DecodeMatmulCutTest, FillsAnH200WithTheShapesOfAnEightBillionModel) {
  const Cut out = CutDecodeMatmul(4096, 4096, 132);
  EXPECT_EQ(out.whole.groups, 128u);
  EXPECT_EQ(out.parts, 4u);
  EXPECT_EQ(out.split.rows, 128u);
  const Cut qkv = CutDecodeMatmul(6144, 4096, 132);
  EXPECT_EQ(qkv.whole.groups, 128u);
  EXPECT_EQ(qkv.parts * qkv.split.groups, 128u);
  const Cut gate_up = CutDecodeMatmul(28672, 4096, 132);
  EXPECT_EQ(gate_up.parts, 1u);
  EXPECT_EQ(gate_up.whole.groups, 128u);
  EXPECT_EQ(CutDecodeMatmul(128256, 4096, 132).whole.groups, 128u);
}

}  // namespace
}  // namespace longhaul
