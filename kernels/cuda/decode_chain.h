// The products of decode rows between two attentions, gathered call by call and queued as one
// launch. A call joins when its input is the output of the call before; whatever does not, and
// whoever needs the results, flushes first. Which calls are joined changes no bit of a row but
// through norms: one that follows an accumulating product is finished by the product after it. So
// the calls of a phase must come in the same order in every step.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "common/model/device_buffer.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/decode_matmul.h"

namespace longhaul {

class DecodeChain {
 public:
  explicit DecodeChain(CudaDevice& device) : device_(device) {}

  // Memory for products with weights of n rows. Load time. Error: ResourceExhausted.
  absl::Status Reserve(int64_t n);

  // `product` without what a norm adds to it.
  void MatMul(DecodeMatmul product, int64_t rows);
  // out [rows, width] bf16 = x / rms(x) * weight. Only the next product may read `out` where it
  // joins: it may then lack the division.
  void RmsNorm(void* out, const float* x, const float* weight, int64_t rows, int64_t width,
               float epsilon);

  // Queues what was gathered.
  void Flush();

 private:
  bool Joins(const void* x, int64_t rows) const;

  CudaDevice& device_;
  std::unique_ptr<DeviceBuffer> partials_, squares_, counters_;
  int64_t reserved_n_ = 0;

  std::vector<DecodeMatmul> products_;
  int64_t rows_ = 0;
  float epsilon_ = 0.0f;  // of the norm after the last product
};

}  // namespace longhaul
