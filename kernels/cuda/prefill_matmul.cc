#include "kernels/cuda/prefill_matmul.h"

#include <algorithm>
#include <array>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/slab_digest.h"

namespace longhaul {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
// The number of rows that a shape's standard algorithm is chosen for.
constexpr int64_t kManyRows = 4096;
constexpr int kTimedRuns = 3;
constexpr uint32_t kAlignmentBytes = 16;
constexpr int kCandidates = 16;

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

int64_t OutBytes(const PrefillMatmul::Shape& shape) {
  return shape.accumulate ? sizeof(float) : sizeof(uint16_t);
}

// What a product's results are compared by: digests of runs of so many bytes.
constexpr int64_t kSlabBytes = 32 << 10;
int64_t DigestedSlabs(const PrefillMatmul::Shape& shape, int64_t rows) {
  return (rows * shape.n * OutBytes(shape) + kSlabBytes - 1) / kSlabBytes;
}

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

std::vector<cublasLtMatmulAlgo_t> PrefillMatmul::Candidates(const Shape& shape, int64_t rows) {
  Problem problem(shape, rows, nullptr);
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
  LH_CHECK(!candidates.empty(), absl::StrCat("cuBLAS has no algorithm without split sums for [",
                                             shape.n, ", ", shape.k, "] among ", count));
  return candidates;
}

void PrefillMatmul::Tune(const Shape& shape, const void* weight, const void* bias) {
  if (algorithms_.contains(shape)) return;
  Algorithms& algorithms = algorithms_[shape];
  algorithms.fill(Candidates(shape, kManyRows).front());
  // The weight's own rows serve as x: numbers of the right kind that are there already.
  const int64_t rows_max = std::min(shape.n, kRowClasses.back());
  const int64_t slabs = DigestedSlabs(shape, rows_max);
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> out = device_.Allocate(slabs * kSlabBytes);
  absl::StatusOr<CudaPinnedBuffer> digested =
      CudaPinnedBuffer::Allocate(2 * slabs * static_cast<int64_t>(sizeof(uint64_t)));
  if (!out.ok() || !digested.ok()) return;
  digested_ = *std::move(digested);
  const Operands operands = {weight, weight, bias, (*out)->data()};
  for (size_t i = 0; i < kRowClasses.size(); ++i) {
    algorithms[i] =
        FastestEqual(shape, operands, std::min(kRowClasses[i], rows_max), algorithms.back());
  }
}

cublasLtMatmulAlgo_t PrefillMatmul::FastestEqual(const Shape& shape, const Operands& operands,
                                                 int64_t rows,
                                                 const cublasLtMatmulAlgo_t& standard) {
  const std::vector<uint64_t> digests = Digests(shape, operands, rows, standard);
  cublasLtMatmulAlgo_t fastest = standard;
  double fastest_ms = Milliseconds(shape, operands, rows, standard);
  for (const cublasLtMatmulAlgo_t& candidate : Candidates(shape, rows)) {
    if (Digests(shape, operands, rows, candidate) != digests) continue;
    const double ms = Milliseconds(shape, operands, rows, candidate);
    if (ms < fastest_ms) {
      fastest = candidate;
      fastest_ms = ms;
    }
  }
  return fastest;
}

std::vector<uint64_t> PrefillMatmul::Digests(const Shape& shape, const Operands& operands,
                                             int64_t rows, const cublasLtMatmulAlgo_t& algorithm) {
  const int64_t count = DigestedSlabs(shape, rows);
  auto* const out = static_cast<std::byte*>(operands.out);
  CudaCheck(cudaMemsetAsync(out, 0, count * kSlabBytes, device_.stream()), "cudaMemsetAsync");
  Queue(shape, operands, rows, algorithm);
  // How a product joins what is there already shows only where something is.
  if (shape.accumulate) Queue(shape, operands, rows, algorithm);
  auto* const slabs = reinterpret_cast<const std::byte**>(digested_.data());
  auto* const digests = reinterpret_cast<uint64_t*>(digested_.data()) + count;
  for (int64_t i = 0; i < count; ++i) slabs[i] = out + i * kSlabBytes;
  LaunchSlabDigests(slabs, static_cast<int>(count), kSlabBytes, digests, device_.stream());
  device_.Wait(device_.Record());
  return {digests, digests + count};
}

double PrefillMatmul::Milliseconds(const Shape& shape, const Operands& operands, int64_t rows,
                                   const cublasLtMatmulAlgo_t& algorithm) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  CudaCheck(cudaEventCreate(&begin), "cudaEventCreate");
  CudaCheck(cudaEventCreate(&end), "cudaEventCreate");
  float least = std::numeric_limits<float>::max();
  for (int run = 0; run < kTimedRuns; ++run) {
    CudaCheck(cudaEventRecord(begin, device_.stream()), "cudaEventRecord");
    Queue(shape, operands, rows, algorithm);
    CudaCheck(cudaEventRecord(end, device_.stream()), "cudaEventRecord");
    CudaCheck(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    CudaCheck(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    least = std::min(least, ms);
  }
  CudaCheck(cudaEventDestroy(begin), "cudaEventDestroy");
  CudaCheck(cudaEventDestroy(end), "cudaEventDestroy");
  return least;
}

void PrefillMatmul::Run(const Shape& shape, const void* weight, const void* x, int64_t rows,
                        const void* bias, void* out) {
  const auto found = algorithms_.find(shape);
  LH_CHECK(found != algorithms_.end(),
           absl::StrCat("[", shape.n, ", ", shape.k, "] was not tuned for"));
  const auto row_class = std::lower_bound(kRowClasses.begin(), kRowClasses.end(), rows);
  Queue(shape, {weight, x, bias, out}, rows, found->second[row_class - kRowClasses.begin()]);
}

void PrefillMatmul::Queue(const Shape& shape, const Operands& operands, int64_t rows,
                          const cublasLtMatmulAlgo_t& algorithm) {
  Problem problem(shape, rows, operands.bias);
  const float one = 1.0f;
  const float beta = shape.accumulate ? 1.0f : 0.0f;
  const cublasStatus_t status =
      cublasLtMatmul(handle_, &problem.product, &one, operands.weight, &problem.weight, operands.x,
                     &problem.x, &beta, operands.out, &problem.out, operands.out, &problem.out,
                     &algorithm, workspace_->data(), kWorkspaceBytes, device_.stream());
  LH_CHECK(status == CUBLAS_STATUS_SUCCESS,
           absl::StrCat("cublasLtMatmul of ", rows, " rows times [", shape.n, ", ", shape.k,
                        "]: ", cublasLtGetStatusName(status)));
}

}  // namespace longhaul
