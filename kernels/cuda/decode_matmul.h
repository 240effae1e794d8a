// Matrix products of decode rows: out [rows, n] = x [rows, k] W [n, k]^T (+ bias [n]), with bf16 x
// and W and sums in fp32. Built for few rows, where the time is that of reading W once: at the
// memory's rate up to 128 rows, good up to 256.
//
// The order of every sum depends on W's shape and the device alone: a row's result has the same
// bits whatever rows are beside it. A launch may start while the kernel before it in the stream
// still runs (programmatic dependent launch): until that one ends it only fetches weights, which
// must therefore not be written by it. All of it can be captured into a graph.
//
// Device thread only. Nothing is allocated, nothing waited for.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/decode_matmul_cut.h"

namespace longhaul {

enum class DecodeOutput : uint8_t {
  kBf16,            // out = product
  kFloat,           // out = product
  kFloatAccumulate  // out += product
};

// What is made once for a weight: where it is and how it is cut.
struct DecodeMatmulPlan {
  CUtensorMap weight;
  int64_t n = 0;
  int64_t k = 0;
  DecodeMatmulCut cut;
};

// `weight` [n, k] bf16, row after row, 16-byte aligned, on the current device, which has
// `multiprocessors`; k is a multiple of 8.
DecodeMatmulPlan PlanDecodeMatmul(const void* weight, int64_t n, int64_t k, int multiprocessors);

// Memory that launches of one stream share. `arrivals` is filled with zeros once, before the first
// launch; each launch leaves it so.
struct DecodeMatmulWorkspace {
  float* partials = nullptr;
  uint32_t* arrivals = nullptr;
};

// What launches of up to `rows` rows on a device of `multiprocessors`, and plans of up to `n`,
// need.
int64_t DecodeMatmulPartialBytes(int64_t rows, int multiprocessors);
int64_t DecodeMatmulArrivalBytes(int64_t n);

// Queues the product. `x` [rows, k] bf16, 16-byte aligned; `bias` [n] or null; `out` [rows, n] of
// the kind `output` says.
void LaunchDecodeMatmul(const DecodeMatmulPlan& plan, const void* x, int64_t rows,
                        const float* bias, void* out, DecodeOutput output,
                        const DecodeMatmulWorkspace& workspace, cudaStream_t stream);

}  // namespace longhaul
