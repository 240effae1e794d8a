// The kernels for Avx2. Compiled with that level's flags.
#include "kernels/cpu/decode_attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/float_dot.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/prefill_attention.h"
#include "kernels/cpu/vector_avx2.h"

namespace longhaul {

const CpuKernels& Avx2Kernels() {
  using V = VectorAvx2;
  using Prefill = PrefillAttentionKernel<FloatProduct<V>>;
  static constexpr CpuKernels kKernels = {
      .isa = CpuIsa::kAvx2,
      .rms_norm = Elementwise<V>::RmsNorm,
      .gated = Elementwise<V>::Gated,
      .add = Elementwise<V>::Add,
      .rotate = Elementwise<V>::Rotate,
      .round_to_bf16 = Elementwise<V>::RoundToBf16,
      .dequantize = FloatDot<V>::Dequantize,
      .packed_row_bytes = FloatDot<V>::PackedRowBytes,
      .pack_row = FloatDot<V>::PackRow,
      .dot_rows = FloatDot<V>::DotRows,
      .decode_attention = DecodeAttentionKernel<V>::Run,
      .prefill_scratch_bytes = Prefill::ScratchBytes,
      .prefill_attention = Prefill::Run,
  };
  return kKernels;
}

}  // namespace longhaul
