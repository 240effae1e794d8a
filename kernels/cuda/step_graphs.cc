#include "kernels/cuda/step_graphs.h"

#include "kernels/cuda/cuda_check.h"

namespace longhaul {
namespace {

// More shapes than a worker has; beyond it all are recorded anew.
constexpr size_t kRecordedMax = 1024;

}  // namespace

void StepGraphs::Run(const Key& key, absl::FunctionRef<void()> body) {
  if (frees_ != device_.frees() || recorded_.size() > kRecordedMax) {
    // A recording may hold the address of what was freed.
    Drop();
    frees_ = device_.frees();
  }
  const auto [found, first] = recorded_.try_emplace(key, nullptr);
  // The first time, whatever is made or loaded on first use is; a recording could not do that.
  if (first) return body();
  if (found->second == nullptr) {
    const cudaStream_t stream = device_.stream();
    cudaGraph_t graph = nullptr;
    CudaCheck(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
              "cudaStreamBeginCapture");
    body();
    CudaCheck(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    CudaCheck(cudaGraphInstantiate(&found->second, graph, 0), "cudaGraphInstantiate");
    CudaCheck(cudaGraphDestroy(graph), "cudaGraphDestroy");
    CudaCheck(cudaGraphUpload(found->second, stream), "cudaGraphUpload");
  }
  CudaCheck(cudaGraphLaunch(found->second, device_.stream()), "cudaGraphLaunch");
  ++replays_;
}

void StepGraphs::Drop() {
  device_.Bind();
  // A launched graph may be destroyed before it has ended: CUDA keeps what it needs.
  for (const auto& [key, graph] : recorded_) {
    if (graph != nullptr) CudaCheck(cudaGraphExecDestroy(graph), "cudaGraphExecDestroy");
  }
  recorded_.clear();
}

}  // namespace longhaul
