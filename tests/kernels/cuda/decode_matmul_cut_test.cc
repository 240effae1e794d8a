// Every element of a weight belongs to one CTA, whatever the shape and the device.
#include "kernels/cuda/decode_matmul_cut.h"

#include <gtest/gtest.h>

#include <tuple>

namespace longhaul {
namespace {

using Cut = DecodeMatmulCut;

TEST(DecodeMatmulCutTest, CoversEveryRowAndEveryUnit) {
  for (const int multiprocessors : {1, 2, 7, 78, 114, 132, 144}) {
    for (const int64_t n : {1, 64, 255, 256, 257, 576, 4096, 6144, 28672, 49152, 128256}) {
      for (const int64_t k : {8, 64, 72, 576, 1536, 4096, 14336}) {
        const Cut cut = CutDecodeMatmul(n, k, multiprocessors);
        EXPECT_GE(int64_t{cut.groups} * cut.rows, n);
        EXPECT_LT(int64_t{cut.groups - 1} * cut.rows, n);
        EXPECT_LE(cut.groups * cut.parts, static_cast<uint32_t>(multiprocessors));
        EXPECT_EQ(cut.rows % cut.tile_rows, 0u);
        EXPECT_EQ(cut.tile_rows % 8, 0u);
        EXPECT_LE(cut.tile_rows, Cut::kTileRows);
        if (cut.parts > 1) EXPECT_EQ(cut.tile_rows, cut.rows);

        EXPECT_GE(int64_t{cut.units} * Cut::kUnitColumns, k);
        EXPECT_EQ(cut.PartFirst(0), 0u);
        EXPECT_EQ(cut.PartFirst(cut.parts), cut.units);
        for (uint32_t part = 0; part < cut.parts; ++part) {
          EXPECT_LT(cut.PartFirst(part), cut.PartFirst(part + 1));
          for (uint32_t group = 0; group < cut.groups; ++group) {
            EXPECT_GE(cut.PartStart(part, group), cut.PartFirst(part));
            EXPECT_LT(cut.PartStart(part, group), cut.PartFirst(part + 1));
          }
        }
      }
    }
  }
}

TEST(DecodeMatmulCutTest, FillsAnH200WithTheShapesOfAnEightBillionModel) {
  for (const auto& [n, k, parts] :
       {std::tuple{4096, 4096, 4}, std::tuple{4096, 14336, 4}, std::tuple{6144, 4096, 2},
        std::tuple{28672, 4096, 1}, std::tuple{128256, 4096, 1}}) {
    const Cut cut = CutDecodeMatmul(n, k, 132);
    EXPECT_EQ(cut.parts, static_cast<uint32_t>(parts)) << n << "x" << k;
    EXPECT_EQ(cut.groups * cut.parts, 128u) << n << "x" << k;
  }
}

}  // namespace
}  // namespace longhaul
