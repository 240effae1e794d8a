#include "kernels/cpu/kernel_table.h"

namespace longhaul {

const CpuKernels& KernelsFor(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx2:
      return Avx2Kernels();
    case CpuIsa::kAvx512:
      return Avx512Kernels();
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAmx:
      break;
  }
  return Avx512Bf16Kernels();
}

}  // namespace longhaul
