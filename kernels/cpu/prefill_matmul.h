// Matrix-matrix products of prefill rows through oneDNN: bf16 operands and float32 sums where the
// processor multiplies bf16 (AMX, AVX512-BF16), else float32. Device thread only; shares its work
// out over the pool.
//
// A product is cut into tasks of kTileRows rows and one panel of columns, each run by one thread
// with one and the same oneDNN primitive, short tiles padded with zeros, into a dense tile of its
// own (dense outputs are what oneDNN's best kernels ask for) and from there into place. So a row's
// bits depend on neither the number of rows nor the number of threads.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/model/weights.h"
#include "common/runtime/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/work_sharing.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace longhaul {

// Keeps oneDNN from using instructions above `isa`. Takes effect once in a process, before its
// first primitive.
void CapOneDnn(CpuIsa isa);

// A weight matrix W [n, k] in oneDNN's own layout, cut into panels of its rows.
struct PrefillMatrix {
  int64_t n = 0;
  int64_t k = 0;
  struct Panel {
    int64_t first = 0;  // output columns [first, first + columns)
    int64_t columns = 0;
    dnnl::memory weights;
  };
  std::vector<Panel> panels;
};

class PrefillMatMul {
 public:
  PrefillMatMul(const CpuKernels& kernels, ThreadPool& pool);

  // Dequantises the parts, whose rows follow each other, and packs them. The bf16 form rounds each
  // weight once, to nearest even.
  std::unique_ptr<PrefillMatrix> Pack(absl::Span<const WeightView> parts);

  // out [rows, n] = x [rows, k] W^T; with `accumulate`, out += instead.
  void Run(float* out, const float* x, int64_t rows, const PrefillMatrix& matrix, bool accumulate);

  static constexpr int64_t kTileRows = 64;

 private:
  // One panel's product for a whole tile: (k, panel columns).
  using Shape = std::pair<int64_t, int64_t>;
  struct Product {
    dnnl::matmul::primitive_desc description;
    dnnl::matmul primitive;
  };
  const Product& ProductFor(const Shape& shape);
  void RunTask(float* out, int64_t rows, const PrefillMatrix& matrix, const Product& product,
               const PrefillMatrix::Panel& panel, int64_t tile, bool accumulate, int worker);

  const CpuKernels& kernels_;
  ThreadPool& pool_;
  const dnnl::engine engine_;
  const dnnl::memory::data_type operand_type_;
  const int64_t operand_bytes_;
  std::map<Shape, Product> products_;
  std::vector<std::byte> operands_;  // x as operands, padded to whole tiles
  // Of each worker: a task's outputs, and oneDNN's scratchpad.
  struct Worker {
    dnnl::stream stream;
    std::vector<float> tile;
    std::vector<std::byte> scratchpad;
  };
  std::vector<Worker> workers_;
};

}  // namespace longhaul
