#include "kernels/cpu/cpu_isa.h"

#include <cpuid.h>

#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace longhaul {
namespace {

constexpr CpuIsa kAll[] = {CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16, CpuIsa::kAmx};

struct Registers {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

Registers Cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}

// Which register states the operating system saves (XCR0).
uint64_t SavedStates() {
  uint32_t low = 0;
  uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

bool Has(uint64_t bits, std::initializer_list<int> positions) {
  for (const int position : positions) {
    if ((bits >> position & 1) == 0) return false;
  }
  return true;
}

}  // namespace

absl::string_view CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512_bf16";
    case CpuIsa::kAmx:
      return "amx";
  }
  return "?";
}

absl::StatusOr<CpuIsa> ParseCpuIsa(absl::string_view name) {
  for (const CpuIsa isa : kAll) {
    if (name == CpuIsaName(isa)) return isa;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no instruction level \"", name, "\"; use avx2, avx512, avx512_bf16 or amx"));
}

absl::StatusOr<CpuIsa> DetectCpuIsa() {
  const Registers basic = Cpuid(1);
  const Registers extended = Cpuid(7, 0);
  const Registers extended1 = Cpuid(7, 1);
  // Bit numbers: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, CPUID;
  // volume 1, chapter 13 for the saved states.
  const bool saves_registers = Has(basic.c, {27});  // OSXSAVE
  const uint64_t saved = saves_registers ? SavedStates() : 0;
  const bool avx2 = Has(saved, {1, 2}) && Has(basic.c, {12, 28, 29}) && Has(extended.b, {5});
  if (!avx2) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this processor (", CpuName(), ") lacks AVX2, FMA or F16C, which the CPU backend needs"));
  }
  const bool avx512 = Has(saved, {5, 6, 7}) && Has(extended.b, {16, 17, 30, 31});
  if (!avx512) return CpuIsa::kAvx2;
  if (!Has(extended.c, {11}) || !Has(extended1.a, {5})) return CpuIsa::kAvx512;
  const bool amx = Has(saved, {17, 18}) && Has(extended.d, {22, 24});
  return amx ? CpuIsa::kAmx : CpuIsa::kAvx512Bf16;
}

std::string CpuName() {
  char text[49] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    const Registers r = Cpuid(0x80000002u + i);
    std::memcpy(text + i * 16, &r, 16);
  }
  return std::string(absl::StripAsciiWhitespace(text));
}

}  // namespace longhaul
