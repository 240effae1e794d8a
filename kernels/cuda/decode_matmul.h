// Matrix products of decode rows, one after another in one kernel: out [rows, n] = x [rows, k]
// W [n, k]^T (+ bias [n]), with bf16 x and W and sums in fp32. Built for few rows, where the time
// is that of reading the weights once: near the memory's rate up to 32 rows, good up to 128.
//
// Weights do not depend on what is computed, so their copies run ahead of it, over the ends of
// products, as far as shared memory reaches (some 25 MB on a whole H200, 6 us of its bandwidth):
// that hides what lies between two products, namely adding up shared sums, telling all
// multiprocessors, and fetching the next x.
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

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/cuda/decode_matmul_cut.h"

namespace longhaul {

// Products of one launch.
inline constexpr int kDecodeMatmulsMax = 8;

enum class DecodeOutput : uint8_t {
  kBf16,             // out = product
  kFloat,            // out = product
  kFloatAccumulate,  // out += product
  // Rows of W are gate and up in turns of kGatedRows; out [rows, n / 2] = silu(gate) * up, bf16.
  kGated,
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

struct DecodeMatmul {
  const DecodeMatmulPlan* plan = nullptr;
  const void* x = nullptr;      // [rows, k] bf16, 16-byte aligned
  const float* bias = nullptr;  // [n], or null
  DecodeOutput output = DecodeOutput::kBf16;
  void* out = nullptr;  // [rows, n] of the kind `output` says

  // kFloatAccumulate only, or null: normed [rows, n] bf16 = out * norm_weight [n]. It lacks the
  // division by the rows' root mean square, which is known when all of a row is, too late here: the
  // next product, if that is its x, must be `divided`.
  const float* norm_weight = nullptr;
  void* normed = nullptr;
  // x is what the product before left as `normed`; this one divides its sums by the rows' root mean
  // square.
  bool divided = false;
  float epsilon = 0.0f;
};

// Memory that launches of one stream share. `counters` are zeros before the first launch; each
// launch leaves them so.
struct DecodeMatmulWorkspace {
  float* partials = nullptr;
  float* squares = nullptr;
  uint32_t* counters = nullptr;
};

// What launches on a device of `multiprocessors` need, for plans of up to `n` and normed rows of up
// to `normed_n`.
int64_t DecodeMatmulPartialBytes(int multiprocessors);
int64_t DecodeMatmulSquareBytes(int64_t normed_n);
int64_t DecodeMatmulCounterBytes(int64_t n);

// Queues the products. x of each but the first is the `out` or `normed` of the one before. The
// kernel's blocks wait for each other: of the streams that may run such kernels on a device at the
// same time, all but one launch cooperatively, which costs some 2 us; under MPS all of them do.
void LaunchDecodeMatmuls(absl::Span<const DecodeMatmul> products, int64_t rows,
                         const DecodeMatmulWorkspace& workspace, bool cooperatively,
                         cudaStream_t stream);

}  // namespace longhaul
