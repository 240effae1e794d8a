// The matrix unit's instructions (wgmma) in the shapes that our kernels use: bf16 operands, float32
// sums. Issued by the four warps of a warpgroup together; asynchronous, see WgmmaFence, WgmmaCommit
// and WgmmaWait in ptx.cuh.
//
// An accumulator of 64 x N is N / 2 registers a thread: register 4 j + e of lane l in warp w holds
// row 16 w + l / 4 + 8 (e / 2), column 8 j + 2 (l % 4) + e % 2. An operand A of 64 x 16 in
// registers has the same places for j = 0, 1, two columns packed in one register. NVIDIA, "PTX
// ISA", 9.0, section on wgmma.
#pragma once

#include <cstdint>

namespace longhaul::ptx {

#define LH_F4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define LH_F16(d, i) LH_F4(d, i), LH_F4(d, i + 4), LH_F4(d, i + 8), LH_F4(d, i + 12)

// d [64, 128] = a [64, 16] b, added to d when `add`; a in registers, b in shared memory: [16, 128]
// with kMnMajor, else [128, 16], K-major.
template <bool kMnMajor>
__device__ __forceinline__ void WgmmaN128(float (&d)[64], const uint32_t* a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, %70;\n"
      "}\n"
      : LH_F16(d, 0), LH_F16(d, 16), LH_F16(d, 32), LH_F16(d, 48)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
        "n"(static_cast<int>(kMnMajor)));
}

// d [64, 64] = a [64, 16] b [16, 64], added to d when `add`; a in registers, b in shared memory,
// MN-major.
__device__ __forceinline__ void WgmmaN64(float (&d)[32], const uint32_t* a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n"
      "}\n"
      : LH_F16(d, 0), LH_F16(d, 16)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}

#undef LH_F16
#undef LH_F4

}  // namespace longhaul::ptx
