// The CPU maker of the door Backend. Its kernels are chosen at run time by what the processor has:
// AVX2, AVX-512, AVX-512 with BF16, AMX.
//
// Precision. Decode rows: weights are read as the file has them and never rounded; activations are
// float32, but at AVX512-BF16 and above, against Q4_0, Q4_1 and Q8_0 weights, 16-bit fixed point
// with one scale for 32 neighbours. Prefill rows: at AVX512-BF16 and above weights and activations
// are rounded to bf16 for matrix products, queries and attention weights too; below that all is
// float32. The residual stream, norms, rotations and all sums are float32 everywhere; KV is bf16.
//
// Shapes: head_dim a multiple of 16 up to 512, KV blocks of a multiple of 16 tokens, any group of
// query heads. Weight types: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/backend.h"
#include "kernels/cpu/cpu_isa.h"

namespace longhaul {

struct CpuBackendOptions {
  int threads = 1;              // workers in all; the device thread is worker 0
  std::vector<int> cores = {};  // worker i >= 1 is pinned to cores[i % size]; empty: not pinned
  std::optional<CpuIsa> isa_max = {};  // use no more than this level; for tests and comparisons
  int64_t memory_bytes_max = 0;  // what Allocate may give in all; 0: what the machine has free
  // Prefill packs a second copy of each matrix (bf16 or float32). True: while the weights are
  // loaded. False: when a prefill row first needs it, so that a process that only decodes never
  // holds it.
  bool pack_prefill_at_load = false;
};

// The level is a matter of the whole process (oneDNN's cap is set once): the first backend made
// decides. Errors: FailedPrecondition when the processor lacks AVX2 or the level asked for;
// InvalidArgument for the options.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options);

}  // namespace longhaul
