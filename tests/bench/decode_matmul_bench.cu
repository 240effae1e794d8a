// Times the decode products on the Llama-3-8B shapes, beside the rate of plain reading and beside
// cuBLAS in the same run. Each figure is the median of replays of a graph whose launches go over
// copies of the weight larger than the L2 cache; TB/s are the weight's bytes over the time. A shape
// is timed as a step has it: several products in a launch, each of which waits for the one before.
//   decode_matmul_bench [model|shapes|quick]...    without arguments: model and shapes
#include <cublas_v2.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/decode_matmul.h"
#include "tests/kernels/cuda/device_array.h"
#include "tests/kernels/cuda/hashed_bf16.cuh"

namespace longhaul {
namespace {

constexpr int64_t kRowsMax = 256;
constexpr int64_t kWidthMax = 14336;
constexpr int64_t kVocabulary = 128256;
constexpr int kReplays = 9;

void CublasCheck(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    std::fprintf(stderr, "cublas: %d\n", static_cast<int>(status));
    std::exit(1);
  }
}

template <typename T>
T* Allocate(int64_t count) {
  T* data = nullptr;
  CudaCheck(cudaMalloc(&data, count * sizeof(T)), "cudaMalloc");
  return data;
}

__nv_bfloat16* RandomMatrix(int64_t count, uint64_t seed) {
  __nv_bfloat16* data = Allocate<__nv_bfloat16>(count);
  FillHashed<<<2048, 256>>>(data, count, seed);
  CudaCheckLaunch("FillHashed");
  return data;
}

// Each thread sums 16-byte pieces of all that is there, eight under way at a time.
__global__ void __launch_bounds__(512) ReadAll(const uint4* from, int64_t count, uint32_t* out) {
  uint32_t sum = 0;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  for (; i + 7 * step < count; i += 8 * step) {
    uint4 piece[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) piece[j] = __ldcs(from + i + j * step);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += piece[j].x ^ piece[j].y ^ piece[j].z ^ piece[j].w;
  }
  if (sum == 0x12345678) *out = sum;
}

class Bench {
 public:
  Bench() {
    CudaCheck(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, 0),
              "multiprocessors");
    CudaCheck(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    CudaCheck(cudaEventCreate(&begin_), "cudaEventCreate");
    CudaCheck(cudaEventCreate(&end_), "cudaEventCreate");
    x_ = RandomMatrix(kRowsMax * kWidthMax, 1);
    out_ = Allocate<float>(kRowsMax * kVocabulary);
    workspace_.partials =
        Allocate<float>(DecodeMatmulPartialBytes(multiprocessors_) / sizeof(float));
    workspace_.squares = Allocate<float>(DecodeMatmulSquareBytes(kWidthMax) / sizeof(float));
    workspace_.counters =
        Allocate<uint32_t>(DecodeMatmulCounterBytes(kVocabulary) / sizeof(uint32_t));
    CudaCheck(cudaMemset(workspace_.counters, 0, DecodeMatmulCounterBytes(kVocabulary)), "memset");
    norm_weight_ = Allocate<float>(kWidthMax);
    CudaCheck(cudaMemset(norm_weight_, 0x3c, kWidthMax * sizeof(float)), "memset");
    for (__nv_bfloat16** values : {&normed_, &gated_, &qkv_}) {
      *values = RandomMatrix(kRowsMax * kWidthMax, 3);
    }
    CudaCheck(cudaMemset(out_, 0, kRowsMax * kVocabulary * sizeof(float)), "memset");
    CublasCheck(cublasCreate(&cublas_));
    CublasCheck(cublasSetStream(cublas_, stream_));
    constexpr int64_t kCublasWorkspace = 64 << 20;
    CublasCheck(
        cublasSetWorkspace(cublas_, Allocate<std::byte>(kCublasWorkspace), kCublasWorkspace));
    CudaCheck(cudaDeviceSynchronize(), "setup");
  }

  // The median time of a replay of what `queue` queues, in microseconds.
  double ReplayUs(const std::function<void()>& queue) {
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    CudaCheck(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capture");
    queue();
    CudaCheck(cudaStreamEndCapture(stream_, &graph), "capture");
    CudaCheck(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
    std::vector<float> times;
    for (int i = 0; i < kReplays + 2; ++i) {
      CudaCheck(cudaEventRecord(begin_, stream_), "cudaEventRecord");
      CudaCheck(cudaGraphLaunch(replay, stream_), "cudaGraphLaunch");
      CudaCheck(cudaEventRecord(end_, stream_), "cudaEventRecord");
      CudaCheck(cudaEventSynchronize(end_), "replay");
      float ms = 0;
      CudaCheck(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
      if (i >= 2) times.push_back(ms * 1000);
    }
    CudaCheck(cudaGraphExecDestroy(replay), "cudaGraphExecDestroy");
    CudaCheck(cudaGraphDestroy(graph), "cudaGraphDestroy");
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

  double ReadCeiling() {
    constexpr int64_t kBytes = int64_t{4} << 30;
    const __nv_bfloat16* data = RandomMatrix(kBytes / 2, 2);
    double best = 0;
    for (const int ctas : {2, 3, 4}) {
      const double us = ReplayUs([&] {
        ReadAll<<<multiprocessors_ * ctas, 512, 0, stream_>>>(reinterpret_cast<const uint4*>(data),
                                                              kBytes / 16, workspace_.counters);
      });
      best = std::max(best, kBytes / us / 1e6);
    }
    CudaCheck(cudaFree(const_cast<__nv_bfloat16*>(data)), "cudaFree");
    return best;
  }

  DecodeMatmul Product(const DecodeMatmulPlan& plan, DecodeOutput output) const {
    DecodeMatmul product;
    product.plan = &plan;
    product.x = x_;
    product.output = output;
    product.out = out_;
    return product;
  }

  void QueueCublas(const __nv_bfloat16* weight, int64_t n, int64_t k, int64_t rows) {
    const float one = 1, zero = 0;
    CublasCheck(cublasGemmEx(cublas_, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(n),
                             static_cast<int>(rows), static_cast<int>(k), &one, weight, CUDA_R_16BF,
                             static_cast<int>(k), x_, CUDA_R_16BF, static_cast<int>(k), &zero, out_,
                             CUDA_R_16BF, static_cast<int>(n), CUBLAS_COMPUTE_32F,
                             CUBLAS_GEMM_DEFAULT));
  }

  void Shapes(double ceiling, const std::vector<int64_t>& rows_list, bool with_cublas) {
    struct Shape {
      const char* name;
      int64_t n;
      int64_t k;
      DecodeOutput output;
    };
    for (const Shape& shape : {Shape{"qkv", 6144, 4096, DecodeOutput::kBf16},
                               Shape{"out", 4096, 4096, DecodeOutput::kFloatAccumulate},
                               Shape{"gate_up", 28672, 4096, DecodeOutput::kBf16},
                               Shape{"down", 4096, 14336, DecodeOutput::kFloatAccumulate},
                               Shape{"head", kVocabulary, 4096, DecodeOutput::kFloat}}) {
      const int64_t count = shape.n * shape.k;
      const int64_t copies = std::max<int64_t>(2, (int64_t{300} << 20) / (count * 2) + 1);
      const int64_t calls = std::max<int64_t>(copies, 24 / copies * copies);
      const int64_t chain = shape.n == kVocabulary ? 1 : 4;
      std::vector<__nv_bfloat16*> weights;
      std::vector<DecodeMatmulPlan> plans;
      for (int64_t i = 0; i < copies; ++i) {
        weights.push_back(RandomMatrix(count, 100 + i));
        plans.push_back(PlanDecodeMatmul(weights[i], shape.n, shape.k, multiprocessors_));
      }
      for (const int64_t rows : rows_list) {
        const double us = ReplayUs([&] {
                            for (int64_t i = 0; i < calls; i += chain) {
                              std::vector<DecodeMatmul> products;
                              for (int64_t j = i; j < std::min(i + chain, calls); ++j) {
                                products.push_back(Product(plans[j % copies], shape.output));
                              }
                              LaunchDecodeMatmuls(products, rows, workspace_, false, stream_);
                            }
                          }) /
                          calls;
        const double rate = count * 2 / us / 1e6;
        std::printf("%-8s rows %3ld: %7.2f us  %.2f TB/s = %.3f of reading", shape.name, rows, us,
                    rate, rate / ceiling);
        if (with_cublas) {
          const double cublas_us = ReplayUs([&] {
                                     for (int64_t i = 0; i < calls; ++i) {
                                       QueueCublas(weights[i % copies], shape.n, shape.k, rows);
                                     }
                                   }) /
                                   calls;
          std::printf("   cuBLAS %7.2f us  %.2f TB/s", cublas_us, count * 2 / cublas_us / 1e6);
        }
        std::printf("\n");
      }
      for (__nv_bfloat16* weight : weights) CudaCheck(cudaFree(weight), "cudaFree");
    }
  }

  // All products of one step of the 8B model, each with a weight of its own, chained as in a step.
  void Model(double ceiling, const std::vector<int64_t>& rows_list) {
    constexpr int kLayers = 32;
    constexpr int64_t kHidden = 4096;
    std::vector<__nv_bfloat16*> weights;
    std::vector<DecodeMatmulPlan> plans;  // qkv, out, gate_up, down of each layer, then the head
    double bytes = 0;
    const auto add = [&](int64_t n, int64_t k) {
      weights.push_back(RandomMatrix(n * k, 1000 + plans.size()));
      plans.push_back(PlanDecodeMatmul(weights.back(), n, k, multiprocessors_));
      bytes += 2.0 * n * k;
    };
    for (int i = 0; i < kLayers; ++i) {
      add(6144, kHidden);
      add(kHidden, kHidden);
      add(2 * kWidthMax, kHidden);
      add(kHidden, kWidthMax);
    }
    add(kVocabulary, kHidden);
    const auto queue = [&](int64_t rows) {
      DecodeMatmul first = Product(plans[0], DecodeOutput::kBf16);
      first.out = qkv_;
      LaunchDecodeMatmuls({&first, 1}, rows, workspace_, false, stream_);
      for (int i = 0; i < kLayers; ++i) {
        const bool is_last = i + 1 == kLayers;
        DecodeMatmul chain[4] = {
            Product(plans[4 * i + 1], DecodeOutput::kFloatAccumulate),
            Product(plans[4 * i + 2], DecodeOutput::kGated),
            Product(plans[4 * i + 3], DecodeOutput::kFloatAccumulate),
            Product(plans[4 * i + 4], is_last ? DecodeOutput::kFloat : DecodeOutput::kBf16)};
        chain[0].norm_weight = chain[2].norm_weight = norm_weight_;
        chain[0].normed = chain[2].normed = normed_;
        chain[1].x = chain[3].x = normed_;
        chain[1].divided = chain[3].divided = true;
        chain[1].out = gated_;
        chain[2].x = gated_;
        if (!is_last) chain[3].out = qkv_;
        LaunchDecodeMatmuls(chain, rows, workspace_, false, stream_);
      }
    };
    const double floor_us = bytes / ceiling / 1e6;
    for (const int64_t rows : rows_list) {
      const double us = ReplayUs([&] { queue(rows); });
      std::printf("8B step, rows %3ld: %7.1f us, floor %7.1f, %.3f of reading\n", rows, us,
                  floor_us, floor_us / us);
    }
    for (__nv_bfloat16* weight : weights) CudaCheck(cudaFree(weight), "cudaFree");
  }

 private:
  int multiprocessors_ = 0;
  cudaStream_t stream_;
  cudaEvent_t begin_;
  cudaEvent_t end_;
  cublasHandle_t cublas_;
  __nv_bfloat16* x_;
  float* out_;
  float* norm_weight_;
  __nv_bfloat16 *normed_, *gated_, *qkv_;
  DecodeMatmulWorkspace workspace_;
};

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  if (longhaul::CudaDevices() == 0) {
    std::fprintf(stderr, "error: no CUDA device\n");
    return 1;
  }
  longhaul::Bench bench;
  const double ceiling = bench.ReadCeiling();
  std::printf("plain reading: %.3f TB/s\n", ceiling);
  std::vector<std::string> what(argv + 1, argv + argc);
  if (what.empty()) what = {"model", "shapes"};
  for (const std::string& part : what) {
    if (part == "model") bench.Model(ceiling, {1, 16, 32, 64, 128, 256});
    if (part == "shapes") bench.Shapes(ceiling, {1, 2, 4, 8, 16, 32, 64, 128, 256}, true);
    if (part == "quick") bench.Shapes(ceiling, {1, 16, 32, 64, 128}, false);
  }
}
