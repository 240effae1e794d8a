#include "kernels/cuda/tensor_map.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/check.h"
#include "kernels/cuda/cuda_check.h"

namespace longhaul {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's library is asked for the function at run time: binaries start without it on machines
// that have no GPU.
Encode FindEncode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  CudaCheck(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                             cudaEnableDefault, &found),
            "cuTensorMapEncodeTiled");
  LH_CHECK(found == cudaDriverEntryPointSuccess, "the driver has no cuTensorMapEncodeTiled");
  return reinterpret_cast<Encode>(function);
}

}  // namespace

CUtensorMap MakeTensorMap(const void* base, absl::Span<const uint64_t> sizes,
                          absl::Span<const uint64_t> stride_bytes, absl::Span<const uint32_t> box) {
  static const Encode encode = FindEncode();
  LH_CHECK(stride_bytes.size() + 1 == sizes.size() && box.size() == sizes.size(),
           "one stride less than sizes, and a box for each");
  constexpr uint32_t kUnitSteps[5] = {1, 1, 1, 1, 1};
  // The cache fetches no more than a copy asks for: rounding its 128 bytes up to 256 fetches some
  // of them twice, and costs 5% of the memory's bandwidth.
  CUtensorMap map;
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<uint32_t>(sizes.size()),
             const_cast<void*>(base), sizes.data(), stride_bytes.data(), box.data(), kUnitSteps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  LH_CHECK(result == CUDA_SUCCESS,
           absl::StrCat("tensor map refused with ", result, ": sizes ", absl::StrJoin(sizes, "x"),
                        ", strides ", absl::StrJoin(stride_bytes, ","), ", box ",
                        absl::StrJoin(box, "x")));
  return map;
}

CUtensorMap MakeMatrixMap(const void* base, uint64_t rows, uint64_t cols, uint32_t box_rows) {
  return MakeTensorMap(base, {cols, rows}, {cols * sizeof(uint16_t)}, {64, box_rows});
}

}  // namespace longhaul
