// Every unit of a weight belongs to one worker, whatever the shape and the device.
#include "kernels/cuda/decode_matmul_cut.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace longhaul {
namespace {

TEST(DecodeMatmulCutTest, RunsCoverAllUnitsAndDifferByOneAtMost) {
  for (const int multiprocessors : {1, 2, 7, 78, 114, 132, 144}) {
    for (const int64_t n : {1, 64, 255, 256, 257, 576, 4096, 6144, 28672, 49152, 128256}) {
      for (const int64_t k : {8, 64, 72, 576, 1536, 4096, 14336}) {
        const DecodeMatmulCut cut = CutDecodeMatmul(n, k, multiprocessors);
        ASSERT_EQ(cut.FirstUnit(0), 0u);
        ASSERT_EQ(cut.FirstUnit(cut.workers), cut.units());
        ASSERT_LE(cut.workers, std::max(multiprocessors / 2, 1));
        const uint32_t run = cut.units() / cut.workers;
        ASSERT_GE(run, 1u);
        for (uint32_t worker = 0; worker < cut.workers; ++worker) {
          const uint32_t first = cut.FirstUnit(worker);
          const uint32_t end = cut.FirstUnit(worker + 1);
          ASSERT_GE(end - first, run);
          ASSERT_LE(end - first, run + 1);
          ASSERT_EQ(cut.WorkerOf(first), worker);
          ASSERT_EQ(cut.WorkerOf(end - 1), worker);
        }
      }
    }
  }
}

}  // namespace
}  // namespace longhaul
