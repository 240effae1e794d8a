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
  const auto [found, first] = recorded_.try_emplace(key);
  // The first time, whatever is made or loaded on first use is; a recording could not do that.
  if (first) return body();
  if (found->second.empty()) {
    recording_ = &found->second;
    Begin();
    body();
    End();
    recording_ = nullptr;
  }
  for (const cudaGraphExec_t part : found->second) {
    CudaCheck(cudaGraphLaunch(part, device_.stream()), "cudaGraphLaunch");
  }
  ++replays_;
}

void StepGraphs::Cut() {
  if (recording_ == nullptr) return;
  End();
  Begin();
}

void StepGraphs::Begin() {
  CudaCheck(cudaStreamBeginCapture(device_.stream(), cudaStreamCaptureModeThreadLocal),
            "cudaStreamBeginCapture");
}

void StepGraphs::End() {
  const cudaStream_t stream = device_.stream();
  cudaGraph_t graph = nullptr;
  CudaCheck(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  cudaGraphExec_t& part = recording_->emplace_back();
  CudaCheck(cudaGraphInstantiate(&part, graph, 0), "cudaGraphInstantiate");
  CudaCheck(cudaGraphDestroy(graph), "cudaGraphDestroy");
  CudaCheck(cudaGraphUpload(part, stream), "cudaGraphUpload");
}

void StepGraphs::Drop() {
  device_.Bind();
  // A launched graph may be destroyed before it has ended: CUDA keeps what it needs.
  for (const auto& [key, parts] : recorded_) {
    for (const cudaGraphExec_t part : parts) {
      CudaCheck(cudaGraphExecDestroy(part), "cudaGraphExecDestroy");
    }
  }
  recorded_.clear();
}

}  // namespace longhaul
