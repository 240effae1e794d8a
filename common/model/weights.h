// The weights of a model as they lie in its file: views, never copies, in the file's own formats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/model/dtype.h"

namespace longhaul {

// A matrix [rows, cols], or a vector [cols] with rows == 1. y = W x maps cols to rows.
struct WeightView {
  const std::byte* data = nullptr;  // null: the model has no such weight
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride_bytes = 0;  // from row to row; 0: rows lie one after the other

  bool present() const { return data != nullptr; }
  int64_t row_bytes() const { return RowBytes(dtype, cols); }
  int64_t stride() const { return stride_bytes > 0 ? stride_bytes : row_bytes(); }
  int64_t bytes() const { return rows * row_bytes(); }
  const std::byte* Row(int64_t row) const { return data + row * stride(); }
};

struct LayerWeights {
  WeightView attention_norm;          // [hidden]
  WeightView q, k, v;                 // [heads*head_dim, hidden], [kv_heads*head_dim, hidden] twice
  WeightView q_bias, k_bias, v_bias;  // absent unless config.qkv_bias
  WeightView q_norm, k_norm;          // [head_dim], absent unless config.qk_norm
  WeightView attention_out;           // [hidden, heads*head_dim]
  WeightView ffn_norm;                // [hidden]
  WeightView gate, up;                // [ffn_hidden, hidden]
  WeightView down;                    // [hidden, ffn_hidden]
};

struct ModelWeights {
  WeightView embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  WeightView final_norm;  // [hidden]
  WeightView head;        // [vocab, hidden]; equals embedding when config.tied_head
  std::vector<std::shared_ptr<const void>> storage;  // keeps the mapped files alive
};

}  // namespace longhaul
