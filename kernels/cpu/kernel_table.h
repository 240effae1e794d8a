// The inner loops of the CPU backend as a table of functions, one table an instruction level. Each
// function works on what one thread was given and touches nothing else; the backend shares work out
// among threads. Any thread.
//
// Plain types only, and templates over a level's own vector type: a file compiled for a level must
// not leave inline functions behind that the linker could take for the whole program.
//
// Every sum is taken in an order that depends on lengths and absolute positions only, never on the
// rows around it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/model/dtype.h"
#include "kernels/cpu/cpu_isa.h"

namespace longhaul {

// Weight rows [first, end) of a matrix [.., cols] as its file has them.
struct WeightRows {
  const std::byte* data = nullptr;  // row 0
  int64_t row_bytes = 0;
  int64_t cols = 0;
  int64_t first = 0;
  int64_t end = 0;
  DType dtype = DType::kF32;
};

// One layer's keys and values of one sequence and one kv head.
struct KvHead {
  const std::byte* layer = nullptr;  // slab of block 0 of the layer
  int64_t slab_bytes = 0;
  const int32_t* blocks = nullptr;  // the sequence's block table
  int block_tokens = 0;
  int head_dim = 0;
  int64_t key_bytes = 0;    // from a slab's start to the head's keys [block_tokens][head_dim]
  int64_t value_bytes = 0;  // ... values
};

// Blocks hold a multiple of this many tokens, so that as many neighbours lie in one block.
inline constexpr int kBlockTokensStep = 16;
// Widths that attention takes: multiples of kHeadDimStep up to kHeadDimMax.
inline constexpr int kHeadDimStep = 16;
inline constexpr int kHeadDimMax = 512;
// Keys a step of online softmax takes together, at absolute multiples.
inline constexpr int kPrefillKeyTile = 64;
// Keys that one decode task attends to, at absolute multiples.
inline constexpr int kDecodeKeyTile = 256;
// Query positions of a prefill task; with the query heads of a group they make its rows.
inline constexpr int kPrefillQueryTile = 64;

// Query heads of one kv head over a part of its keys: q and sums [group][head_dim].
// Scores are in units of log2; before they are merged, `sums` and `weight` are relative to
// 2^`score_max` of each head.
struct DecodeAttention {
  KvHead kv;
  const float* queries = nullptr;  // [group][head_dim]
  int group = 0;
  int64_t first = 0;  // keys [first, end), end - first <= kDecodeKeyTile
  int64_t end = 0;
  float scale = 0;
  float* sums = nullptr;       // [group][head_dim] sum of 2^(score - score_max) * value
  float* weight = nullptr;     // [group] sum of 2^(score - score_max)
  float* score_max = nullptr;  // [group]
  float* scratch = nullptr;    // [group][kDecodeKeyTile]
};

// Query heads of one kv head at query positions [position, position + queries_count): causal.
struct PrefillAttention {
  KvHead kv;
  const float* queries = nullptr;  // of query i and head g: queries + i*query_stride + g*head_dim
  int64_t query_stride = 0;        // in floats
  float* out = nullptr;            // as queries
  int64_t out_stride = 0;
  int group = 0;
  int64_t position = 0;
  int queries_count = 0;  // <= kPrefillQueryTile
  float scale = 0;
  std::byte* scratch = nullptr;  // prefill_scratch_bytes(group, head_dim), 64-byte aligned
};

struct CpuKernels {
  CpuIsa isa = CpuIsa::kAvx2;

  // out [width] = x / rms(x) * weight.
  void (*rms_norm)(float* out, const float* x, const float* weight, int64_t width, float epsilon);
  // out [n] = silu(gate) * up.
  void (*gated)(float* out, const float* gate, const float* up, int64_t n);
  // out [n] += x.
  void (*add)(float* out, const float* x, int64_t n);
  // Rotates head [2 pairs] in place; pair i is (i, i + pairs), or (2i, 2i + 1) when interleaved.
  void (*rotate)(float* head, const float* cosines, const float* sines, int pairs,
                 bool interleaved);
  // out [n] = x rounded to bf16.
  void (*round_to_bf16)(uint16_t* out, const float* x, int64_t n);
  // out [n] = a weight row as float32. Exact but for one rounding an element.
  void (*dequantize)(DType dtype, const std::byte* row, int64_t n, float* out);

  // An activation row in the form that dot_rows wants for weights of `dtype`.
  int64_t (*packed_row_bytes)(DType dtype, int64_t n);  // a multiple of 64
  void (*pack_row)(DType dtype, const float* x, int64_t n, std::byte* packed);
  // out[r * out_stride + w] = packed row r . weight row w, for w in [first, end); += with
  // `accumulate`. scratch [cols + 64].
  void (*dot_rows)(const WeightRows& weights, const std::byte* packed, int64_t rows, float* out,
                   int64_t out_stride, bool accumulate, float* scratch);

  void (*decode_attention)(const DecodeAttention& task);
  int64_t (*prefill_scratch_bytes)(int group, int head_dim);
  void (*prefill_attention)(const PrefillAttention& task);
};

const CpuKernels& Avx2Kernels();
const CpuKernels& Avx512Kernels();
const CpuKernels& Avx512Bf16Kernels();  // also of kAmx, whose tiles oneDNN uses

const CpuKernels& KernelsFor(CpuIsa isa);

}  // namespace longhaul
