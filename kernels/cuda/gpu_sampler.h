// Sampling where the logits are: rows go up as what they ask for, tokens come back. Only a row that
// wants more log probabilities than the kernel gives (kTopLogprobsMax) is copied to the host and
// sampled there. Device thread.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/model/backend.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/sample_kernel.h"

namespace longhaul {

class GpuSampler {
 public:
  explicit GpuSampler(CudaDevice& device) : device_(device) {}

  // As Backend::Sample, for logits [rows, vocab] on the device. Rows that no memory is left for
  // have ResourceExhausted.
  std::vector<absl::StatusOr<SampledToken>> Sample(float* logits, int64_t vocab,
                                                   absl::Span<const SampleRow> rows);

 private:
  void AddTask(const SampleRow& row);
  absl::Status RunTasks(float* logits, int64_t vocab);
  absl::StatusOr<SampledToken> SampleOnHost(const float* logits, int64_t vocab,
                                            const SampleRow& row);

  CudaDevice& device_;
  std::vector<SampleTask> tasks_;
  std::vector<SampleEdit> edits_;
  // Outcomes, tasks and edits, the same on both sides.
  CudaPinnedBuffer staging_;
  std::unique_ptr<DeviceBuffer> memory_;
};

}  // namespace longhaul
