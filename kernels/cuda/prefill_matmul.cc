#include "kernels/cuda/prefill_matmul.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/random_operands.h"

namespace longhaul {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
constexpr uint32_t kAlignmentBytes = 16;
constexpr int kCandidates = 16;
constexpr int kTimedRuns = 3;
// Smaller weights are multiplied in no time whatever the algorithm.
constexpr int64_t kTunedElementsMin = int64_t{1} << 22;

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
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      Set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
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

struct PrefillMatmul::Product {
  Shape shape;
  const void* weight = nullptr;
  const void* x = nullptr;
  int64_t rows = 0;
  const void* bias = nullptr;
  void* out = nullptr;
};

absl::StatusOr<std::unique_ptr<PrefillMatmul>> PrefillMatmul::Make(CudaDevice& device) {
  LH_ASSIGN_OR_RETURN(auto workspace, device.Allocate(kWorkspaceBytes));
  return std::unique_ptr<PrefillMatmul>(new PrefillMatmul(device, std::move(workspace)));
}

PrefillMatmul::PrefillMatmul(CudaDevice& device, std::unique_ptr<DeviceBuffer> workspace)
    : device_(device), workspace_(std::move(workspace)) {
  Check(cublasLtCreate(&handle_), "cublasLtCreate");
  CudaCheck(cudaEventCreate(&begin_), "cudaEventCreate");
  CudaCheck(cudaEventCreate(&end_), "cudaEventCreate");
}

PrefillMatmul::~PrefillMatmul() {
  device_.Bind();
  CudaCheck(cudaEventDestroy(begin_), "cudaEventDestroy");
  CudaCheck(cudaEventDestroy(end_), "cudaEventDestroy");
  Check(cublasLtDestroy(handle_), "cublasLtDestroy");
}

void PrefillMatmul::Run(const Shape& shape, const void* weight, const void* x, int64_t rows,
                        const void* bias, void* out) {
  const Product product = {shape, weight, x, rows, bias, out};
  const Algorithms& algorithms = AlgorithmsFor(product);
  const auto* row_class = std::lower_bound(kRowClasses.begin(), kRowClasses.end(), rows);
  const size_t index = std::min<size_t>(row_class - kRowClasses.begin(), kRowClasses.size() - 1);
  const cublasStatus_t status = Queue(product, algorithms[index]);
  LH_CHECK(status == CUBLAS_STATUS_SUCCESS,
           absl::StrCat("cublasLtMatmul of ", rows, " rows times [", shape.n, ", ", shape.k,
                        "]: ", cublasLtGetStatusName(status)));
}

const PrefillMatmul::Algorithms& PrefillMatmul::AlgorithmsFor(const Product& product) {
  const auto [found, added] = algorithms_.try_emplace(product.shape);
  if (!added) return found->second;
  Product many = product;
  many.rows = kRowClasses.back();
  const std::vector<cublasLtMatmulAlgo_t> candidates = Candidates(many);
  LH_CHECK(!candidates.empty(), absl::StrCat("cuBLAS has no algorithm without split sums for [",
                                             product.shape.n, ", ", product.shape.k, "]"));
  found->second.fill(candidates[0]);
  if (product.shape.n * product.shape.k >= kTunedElementsMin) Tune(product, found->second);
  return found->second;
}

std::vector<cublasLtMatmulAlgo_t> PrefillMatmul::Candidates(const Product& product) {
  Problem problem(product.shape, product.rows, product.bias);
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
  std::vector<cublasLtMatmulAlgo_t> candidates;
  for (int i = 0; i < count; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS && SumsInOnePlace(results[i].algo)) {
      candidates.push_back(results[i].algo);
    }
  }
  return candidates;
}

void PrefillMatmul::Tune(const Product& product, Algorithms& algorithms) {
  const Shape& shape = product.shape;
  const int64_t rows_max = kRowClasses.back();
  const int64_t out_row_bytes = shape.n * (shape.accumulate ? sizeof(float) : sizeof(uint16_t));
  const auto x = device_.Allocate(rows_max * shape.k * static_cast<int64_t>(sizeof(uint16_t)));
  const auto want = device_.Allocate(rows_max * out_row_bytes);
  const auto got = device_.Allocate(rows_max * out_row_bytes);
  const auto different = device_.Allocate(sizeof(uint32_t));
  if (!x.ok() || !want.ok() || !got.ok() || !different.ok()) {
    LogWarning("prefill_matmul_untuned", {{"n", shape.n}, {"k", shape.k}, {"why", "no memory"}});
    return;
  }
  LaunchRandomBf16((*x)->data(), rows_max * shape.k, device_.stream());
  const cublasLtMatmulAlgo_t first = algorithms.back();
  std::string chosen;
  for (size_t i = 0; i < kRowClasses.size(); ++i) {
    Product trial = product;
    trial.x = (*x)->data();
    trial.rows = kRowClasses[i];
    const auto run = [&](const cublasLtMatmulAlgo_t& algorithm, DeviceBuffer& out) {
      trial.out = out.data();
      CudaCheck(cudaMemsetAsync(out.data(), 0, trial.rows * out_row_bytes, device_.stream()),
                "cudaMemsetAsync");
      return Queue(trial, algorithm) == CUBLAS_STATUS_SUCCESS;
    };
    LH_CHECK(run(first, **want), "the algorithm that defines a shape's sums does not run");
    float best_ms = Milliseconds(trial, first);
    const float first_ms = best_ms;
    LH_CHECK(run(first, **want), "the algorithm that defines a shape's sums does not run");
    int same = 0;
    const std::vector<cublasLtMatmulAlgo_t> candidates = Candidates(trial);
    for (const cublasLtMatmulAlgo_t& candidate : candidates) {
      if (!run(candidate, **got)) continue;
      auto* const count = reinterpret_cast<uint32_t*>((*different)->data());
      LaunchCountDifferent(reinterpret_cast<const uint32_t*>((*want)->data()),
                           reinterpret_cast<const uint32_t*>((*got)->data()),
                           trial.rows * out_row_bytes / static_cast<int64_t>(sizeof(uint32_t)),
                           count, device_.stream());
      uint32_t differences = 0;
      device_.Copy(&differences, count, sizeof(differences));
      device_.Wait(device_.Record());
      if (differences != 0) continue;
      ++same;
      if (const float ms = Milliseconds(trial, candidate); ms < best_ms) {
        best_ms = ms;
        algorithms[i] = candidate;
      }
    }
    absl::StrAppend(&chosen, i == 0 ? "" : "; ", trial.rows, ": ",
                    static_cast<int>(first_ms * 1e3f), " to ", static_cast<int>(best_ms * 1e3f),
                    " us, ", same, " of ", candidates.size(), " alike");
  }
  LogInfo("prefill_matmul_tuned", {{"n", shape.n}, {"k", shape.k}, {"by_rows", chosen}});
}

float PrefillMatmul::Milliseconds(const Product& product, const cublasLtMatmulAlgo_t& algorithm) {
  CudaCheck(cudaEventRecord(begin_, device_.stream()), "cudaEventRecord");
  for (int i = 0; i < kTimedRuns; ++i) Check(Queue(product, algorithm), "cublasLtMatmul");
  CudaCheck(cudaEventRecord(end_, device_.stream()), "cudaEventRecord");
  CudaCheck(cudaEventSynchronize(end_), "cudaEventSynchronize");
  float ms = 0.0f;
  CudaCheck(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
  return ms / kTimedRuns;
}

cublasStatus_t PrefillMatmul::Queue(const Product& product, const cublasLtMatmulAlgo_t& algorithm) {
  Problem problem(product.shape, product.rows, product.bias);
  const float one = 1.0f;
  const float beta = product.shape.accumulate ? 1.0f : 0.0f;
  return cublasLtMatmul(handle_, &problem.product, &one, product.weight, &problem.weight, product.x,
                        &problem.x, &beta, product.out, &problem.out, product.out, &problem.out,
                        &algorithm, workspace_->data(), kWorkspaceBytes, device_.stream());
}

}  // namespace longhaul
