#include "kernels/cpu/prefill_matmul.h"

#include <omp.h>

#include <algorithm>
#include <cstring>

#include "common/base/check.h"

namespace longhaul {
namespace {

using dnnl::memory;

// A panel of this many output columns stays in a core's second-level cache for the usual widths.
constexpr int64_t kPanelColumns = 512;

bool HasBf16(CpuIsa isa) { return isa >= CpuIsa::kAvx512Bf16; }

// Panels of equal width, a multiple of 32 columns where n allows.
std::vector<PrefillMatrix::Panel> CutPanels(int64_t n) {
  const int64_t count = std::max<int64_t>(2, (n + kPanelColumns - 1) / kPanelColumns);
  const int64_t columns = ((n + count - 1) / count + 31) / 32 * 32;
  std::vector<PrefillMatrix::Panel> panels;
  for (int64_t first = 0; first < n; first += columns) {
    PrefillMatrix::Panel& panel = panels.emplace_back();
    panel.first = first;
    panel.columns = std::min(columns, n - first);
  }
  return panels;
}

}  // namespace

void CapOneDnn(CpuIsa isa) {
  // Refused after the first primitive has been made: then the earlier cap holds.
  switch (isa) {
    case CpuIsa::kAvx2:
      dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2);
      break;
    case CpuIsa::kAvx512:
      dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core);
      break;
    case CpuIsa::kAvx512Bf16:
      dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16);
      break;
    case CpuIsa::kAmx:
      dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_amx);
      break;
  }
}

PrefillMatMul::PrefillMatMul(const CpuKernels& kernels, ThreadPool& pool)
    : kernels_(kernels),
      pool_(pool),
      engine_(dnnl::engine::kind::cpu, 0),
      operand_type_(HasBf16(kernels.isa) ? memory::data_type::bf16 : memory::data_type::f32),
      operand_bytes_(HasBf16(kernels.isa) ? 2 : 4) {
  for (int i = 0; i < pool.threads(); ++i) {
    workers_.push_back({dnnl::stream(engine_), {}, {}});
  }
}

const PrefillMatMul::Product& PrefillMatMul::ProductFor(const Shape& shape) {
  auto found = products_.find(shape);
  if (found != products_.end()) return found->second;
  const auto [k, columns] = shape;
  const memory::desc source({kTileRows, k}, operand_type_, memory::format_tag::ab);
  const memory::desc weights({k, columns}, operand_type_, memory::format_tag::any);
  const memory::desc out({kTileRows, columns}, memory::data_type::f32, memory::format_tag::ab);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  Product product;
  product.description =
      dnnl::matmul::primitive_desc(dnnl::matmul::desc(source, weights, out), attributes, engine_);
  product.primitive = dnnl::matmul(product.description);
  return products_.emplace(shape, std::move(product)).first->second;
}

std::unique_ptr<PrefillMatrix> PrefillMatMul::Pack(absl::Span<const WeightView> parts) {
  auto matrix = std::make_unique<PrefillMatrix>();
  matrix->k = parts[0].cols;
  for (const WeightView& part : parts) matrix->n += part.rows;
  matrix->panels = CutPanels(matrix->n);
  // Descriptors are looked up here, on one thread; the pool only reads them.
  std::vector<memory::desc> packed;
  for (const PrefillMatrix::Panel& panel : matrix->panels) {
    packed.push_back(ProductFor({matrix->k, panel.columns}).description.weights_desc());
  }
  const auto pack_panel = [&](int64_t index, int worker) {
    omp_set_num_threads(1);
    PrefillMatrix::Panel& panel = matrix->panels[index];
    const int64_t k = matrix->k;
    std::vector<float> row(k);
    std::vector<std::byte> plain(panel.columns * k * operand_bytes_);
    for (int64_t column = 0; column < panel.columns; ++column) {
      int64_t source_row = panel.first + column;
      const WeightView* part = parts.data();
      for (; source_row >= part->rows; ++part) source_row -= part->rows;
      kernels_.dequantize(part->dtype, part->Row(source_row), k, row.data());
      std::byte* to = plain.data() + column * k * operand_bytes_;
      if (operand_bytes_ == 2) {
        kernels_.round_to_bf16(reinterpret_cast<uint16_t*>(to), row.data(), k);
      } else {
        std::memcpy(to, row.data(), k * sizeof(float));
      }
    }
    // The file's [n, k] rows are the transpose of the operand [k, n].
    memory from(memory::desc({k, panel.columns}, operand_type_, memory::format_tag::ba), engine_,
                plain.data());
    panel.weights = memory(packed[index], engine_);
    dnnl::reorder(from, panel.weights).execute(workers_[worker].stream, from, panel.weights);
    workers_[worker].stream.wait();
  };
  ShareOut(pool_, static_cast<int64_t>(matrix->panels.size()), pack_panel);
  return matrix;
}

void PrefillMatMul::Run(float* out, const float* x, int64_t rows, const PrefillMatrix& matrix,
                        bool accumulate) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t row_bytes = matrix.k * operand_bytes_;
  if (static_cast<int64_t>(operands_.size()) < tiles * kTileRows * row_bytes) {
    operands_.resize(tiles * kTileRows * row_bytes);
  }
  constexpr int64_t kRowsAtOnce = 32;
  ShareOut(pool_, tiles * kTileRows / kRowsAtOnce, [&](int64_t task, int worker) {
    const int64_t first = task * kRowsAtOnce;
    const int64_t end = std::min(first + kRowsAtOnce, rows);
    std::byte* to = operands_.data() + first * row_bytes;
    if (end > first) {
      const float* from = x + first * matrix.k;
      const int64_t count = (end - first) * matrix.k;
      if (operand_bytes_ == 2) {
        kernels_.round_to_bf16(reinterpret_cast<uint16_t*>(to), from, count);
      } else {
        std::memcpy(to, from, count * sizeof(float));
      }
    }
    const int64_t padding = kRowsAtOnce - std::max<int64_t>(0, end - first);
    std::memset(to + (kRowsAtOnce - padding) * row_bytes, 0, padding * row_bytes);
  });

  std::vector<const Product*> products;
  for (const PrefillMatrix::Panel& panel : matrix.panels) {
    products.push_back(&ProductFor({matrix.k, panel.columns}));
  }
  // Tiles of one panel follow each other, so that a thread finds the panel in its cache.
  ShareOut(pool_, tiles * static_cast<int64_t>(matrix.panels.size()),
           [&](int64_t task, int worker) {
             const int64_t panel = task / tiles;
             RunTask(out, rows, matrix, *products[panel], matrix.panels[panel], task % tiles,
                     accumulate, worker);
           });
}

void PrefillMatMul::RunTask(float* out, int64_t rows, const PrefillMatrix& matrix,
                            const Product& product, const PrefillMatrix::Panel& panel, int64_t tile,
                            bool accumulate, int worker) {
  omp_set_num_threads(1);  // the pool is the parallelism
  Worker& mine = workers_[worker];
  const int64_t first = tile * kTileRows;
  const int64_t count = std::min(kTileRows, rows - first);
  if (static_cast<int64_t>(mine.tile.size()) < kTileRows * panel.columns) {
    mine.tile.resize(kTileRows * panel.columns);
  }
  const memory::desc scratchpad = product.description.scratchpad_desc();
  if (mine.scratchpad.size() < scratchpad.get_size()) {
    mine.scratchpad.resize(scratchpad.get_size());
  }
  std::byte* operands = operands_.data() + first * matrix.k * operand_bytes_;
  product.primitive.execute(
      mine.stream,
      {{DNNL_ARG_SRC, memory(product.description.src_desc(), engine_, operands)},
       {DNNL_ARG_WEIGHTS, panel.weights},
       {DNNL_ARG_DST, memory(product.description.dst_desc(), engine_, mine.tile.data())},
       {DNNL_ARG_SCRATCHPAD, memory(scratchpad, engine_, mine.scratchpad.data())}});
  mine.stream.wait();
  for (int64_t r = 0; r < count; ++r) {
    const float* from = mine.tile.data() + r * panel.columns;
    float* to = out + (first + r) * matrix.n + panel.first;
    if (accumulate) {
      kernels_.add(to, from, panel.columns);
    } else {
      std::copy_n(from, panel.columns, to);
    }
  }
}

}  // namespace longhaul
