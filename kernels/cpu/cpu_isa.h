// Which vector instructions this processor has, as the few levels that have kernels of their own.
// Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

// Each level includes those before it.
enum class CpuIsa : uint8_t {
  kAvx2,        // AVX2, FMA, F16C: the least that runs
  kAvx512,      // AVX-512 F, BW, DQ, VL
  kAvx512Bf16,  // and VNNI, BF16 (Zen 4, Cooper Lake)
  kAmx,         // and AMX TILE, BF16 (Sapphire Rapids)
};

absl::string_view CpuIsaName(CpuIsa isa);  // "avx2", "avx512", "avx512_bf16", "amx"

// Error: InvalidArgument with the names there are.
absl::StatusOr<CpuIsa> ParseCpuIsa(absl::string_view name);

// The highest level of this processor whose registers the operating system saves. Error:
// FailedPrecondition when not even kAvx2 is there.
absl::StatusOr<CpuIsa> DetectCpuIsa();

// What the processor calls itself.
std::string CpuName();

}  // namespace longhaul
