#include "kernels/cuda/prefill_matmul.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
// The number of rows that algorithms are chosen for.
constexpr int64_t kChosenAtRows = 4096;
constexpr uint32_t kAlignmentBytes = 16;
constexpr int kCandidates = 32;

void Check(cublasStatus_t status, const char* what) {
  LH_CHECK(status == CUBLAS_STATUS_SUCCESS,
           absl::StrCat(what, ": ", cublasLtGetStatusName(status)));
}

// cuBLAS's description of a product. It sees column after column: our rows are its columns, and
// out^T [n, rows] = W [n, k] x^T [k, rows].
struct Problem {
  Problem(const PrefillMatmul::Shape& shape, int64_t rows, const void* bias) {
    Check(cublasLtMatmulDescInit(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "MatmulDescInit");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    Set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    if (shape.bias) {
      Set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
    Check(cublasLtMatrixLayoutInit(&weight, CUDA_R_16BF, shape.k, shape.n, shape.k), "weight");
    Check(cublasLtMatrixLayoutInit(&x, CUDA_R_16BF, shape.k, rows, shape.k), "x");
    Check(cublasLtMatrixLayoutInit(&out, shape.accumulate ? CUDA_R_32F : CUDA_R_16BF, shape.n, rows,
                                   shape.n),
          "out");
  }
  template <typename Value>
  void Set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    Check(cublasLtMatmulDescSetAttribute(&product, attribute, &value, sizeof(value)),
          "MatmulDescSetAttribute");
  }

  cublasLtMatmulDescOpaque_t product;
  cublasLtMatrixLayoutOpaque_t weight, x, out;
};

// Whether each sum is one processor's alone.
bool SumsInOnePlace(const cublasLtMatmulAlgo_t& algorithm) {
  int32_t parts = 0;
  uint32_t reduction = 0;
  size_t written = 0;
  Check(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
                                             sizeof(parts), &written),
        "SPLITK_NUM");
  Check(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                             &reduction, sizeof(reduction), &written),
        "REDUCTION_SCHEME");
  return parts <= 1 && reduction == CUBLASLT_REDUCTION_SCHEME_NONE;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PrefillMatmul>> PrefillMatmul::Make(CudaDevice& device) {
  LH_ASSIGN_OR_RETURN(auto workspace, device.Allocate(kWorkspaceBytes));
  return std::unique_ptr<PrefillMatmul>(new PrefillMatmul(device, std::move(workspace)));
}

PrefillMatmul::PrefillMatmul(CudaDevice& device, std::unique_ptr<DeviceBuffer> workspace)
    : device_(device), workspace_(std::move(workspace)) {
  Check(cublasLtCreate(&handle_), "cublasLtCreate");
}

PrefillMatmul::~PrefillMatmul() { Check(cublasLtDestroy(handle_), "cublasLtDestroy"); }

const cublasLtMatmulAlgo_t& PrefillMatmul::AlgorithmFor(const Shape& shape) {
  const auto found = algorithms_.find(shape);
  if (found != algorithms_.end()) return found->second;
  Problem problem(shape, kChosenAtRows, nullptr);
  cublasLtMatmulPreferenceOpaque_t preference;
  Check(cublasLtMatmulPreferenceInit(&preference), "PreferenceInit");
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    Check(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value)),
          "PreferenceSetAttribute");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
  for (const auto operand :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(operand, kAlignmentBytes);
  }
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> results;
  int count = 0;
  Check(cublasLtMatmulAlgoGetHeuristic(handle_, &problem.product, &problem.weight, &problem.x,
                                       &problem.out, &problem.out, &preference, kCandidates,
                                       results.data(), &count),
        "AlgoGetHeuristic");
  for (int i = 0; i < count; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS && SumsInOnePlace(results[i].algo)) {
      return algorithms_.emplace(shape, results[i].algo).first->second;
    }
  }
  LH_CHECK(false, absl::StrCat("cuBLAS has no algorithm without split sums for [", shape.n, ", ",
                               shape.k, "] among ", count));
  __builtin_unreachable();
}

void PrefillMatmul::Run(const Shape& shape, const void* weight, const void* x, int64_t rows,
                        const void* bias, void* out) {
  const cublasLtMatmulAlgo_t& algorithm = AlgorithmFor(shape);
  Problem problem(shape, rows, bias);
  const float one = 1.0f;
  const float beta = shape.accumulate ? 1.0f : 0.0f;
  const cublasStatus_t status =
      cublasLtMatmul(handle_, &problem.product, &one, weight, &problem.weight, x, &problem.x, &beta,
                     out, &problem.out, out, &problem.out, &algorithm, workspace_->data(),
                     kWorkspaceBytes, device_.stream());
  LH_CHECK(status == CUBLAS_STATUS_SUCCESS,
           absl::StrCat("cublasLtMatmul of ", rows, " rows times [", shape.n, ", ", shape.k,
                        "]: ", cublasLtGetStatusName(status)));
}

}  // namespace longhaul
