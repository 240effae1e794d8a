// The kernels for AVX-512 with BF16 and VNNI. Compiled with that level's flags.
#include "kernels/cpu/bf16_product.h"
#include "kernels/cpu/decode_attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/fixed_point_dot.h"
#include "kernels/cpu/float_dot.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/prefill_attention.h"
#include "kernels/cpu/vector_avx512.h"

namespace longhaul {

const CpuKernels& Avx512Bf16Kernels() {
  using Prefill = PrefillAttentionKernel<Bf16Product>;
  static const CpuKernels kKernels = [] {
    CpuKernels kernels = Avx512Kernels();
    kernels.isa = CpuIsa::kAvx512Bf16;
    kernels.packed_row_bytes = MixedDot::PackedRowBytes;
    kernels.pack_row = MixedDot::PackRow;
    kernels.dot_rows = MixedDot::DotRows;
    kernels.prefill_scratch_bytes = Prefill::ScratchBytes;
    kernels.prefill_attention = Prefill::Run;
    return kernels;
  }();
  return kKernels;
}

}  // namespace longhaul
