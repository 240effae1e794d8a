#include "kernels/cuda/decode_chain.h"

#include "common/base/check.h"
#include "common/base/status.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/elementwise.h"

namespace longhaul {

absl::Status DecodeChain::Reserve(int64_t n) {
  if (n <= reserved_n_) return absl::OkStatus();
  LH_CHECK(products_.empty(), "memory is reserved before products are queued");
  if (partials_ == nullptr) {
    LH_ASSIGN_OR_RETURN(partials_,
                        device_.Allocate(DecodeMatmulPartialBytes(device_.multiprocessors())));
    LH_ASSIGN_OR_RETURN(squares_, device_.Allocate(DecodeMatmulSquareBytes(kRmsNormWidthMax)));
  }
  const int64_t bytes = DecodeMatmulCounterBytes(n);
  LH_ASSIGN_OR_RETURN(counters_, device_.Allocate(bytes));
  CudaCheck(cudaMemsetAsync(counters_->data(), 0, bytes, device_.stream()), "cudaMemsetAsync");
  reserved_n_ = n;
  return absl::OkStatus();
}

bool DecodeChain::Joins(const void* x, int64_t rows) const {
  if (products_.empty() || products_.size() == kDecodeMatmulsMax || rows != rows_) return false;
  const DecodeMatmul& last = products_.back();
  if (last.normed != nullptr) return x == last.normed;
  return x == last.out &&
         (last.output == DecodeOutput::kBf16 || last.output == DecodeOutput::kGated);
}

void DecodeChain::MatMul(DecodeMatmul product, int64_t rows) {
  if (Joins(product.x, rows)) {
    product.divided = products_.back().normed != nullptr;
    product.epsilon = epsilon_;
  } else {
    Flush();
  }
  products_.push_back(product);
  rows_ = rows;
}

void DecodeChain::RmsNorm(void* out, const float* x, const float* weight, int64_t rows,
                          int64_t width, float epsilon) {
  if (!products_.empty()) {
    DecodeMatmul& last = products_.back();
    if (last.output == DecodeOutput::kFloatAccumulate && last.out == x && rows == rows_ &&
        last.plan->n == width && last.normed == nullptr) {
      last.norm_weight = weight;
      last.normed = out;
      epsilon_ = epsilon;
      return;
    }
    Flush();
  }
  LaunchRmsNorm(static_cast<Bf16*>(out), x, weight, rows, width, epsilon, device_.stream());
}

void DecodeChain::Flush() {
  if (products_.empty()) return;
  DecodeMatmul& last = products_.back();
  const DecodeMatmul norm = last;
  last.norm_weight = nullptr;
  last.normed = nullptr;
  LaunchDecodeMatmuls(
      products_, rows_,
      {reinterpret_cast<float*>(partials_->data()), reinterpret_cast<float*>(squares_->data()),
       reinterpret_cast<uint32_t*>(counters_->data())},
      device_.launches_cooperatively(), device_.stream());
  products_.clear();
  if (norm.normed != nullptr) {
    LaunchRmsNorm(static_cast<Bf16*>(norm.normed), static_cast<const float*>(norm.out),
                  norm.norm_weight, rows_, norm.plan->n, epsilon_, device_.stream());
  }
}

}  // namespace longhaul
