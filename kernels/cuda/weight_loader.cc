#include "kernels/cuda/weight_loader.h"

#include <algorithm>
#include <cstring>

#include "common/base/status.h"
#include "common/model/dequantize.h"
#include "common/model/half.h"
#include "kernels/cpu/work_sharing.h"

namespace longhaul {
namespace {

constexpr int64_t kPieceBytes = int64_t{16} << 20;
constexpr int64_t kTaskBytes = int64_t{256} << 10;

void ToBf16(const WeightView& view, int64_t first_row, int64_t end_row, Bf16* to) {
  const int64_t row_bytes = RowBytes(view.dtype, view.cols);
  if (view.dtype == DType::kBF16) {
    std::memcpy(to, view.data + first_row * row_bytes, (end_row - first_row) * row_bytes);
    return;
  }
  std::vector<float> values(view.cols);
  for (int64_t row = first_row; row < end_row; ++row, to += view.cols) {
    DequantizeRow(view, row, values.data());
    for (int64_t i = 0; i < view.cols; ++i) to[i] = BF16FromF32(values[i]);
  }
}

}  // namespace

absl::Status WeightLoader::Load(const WeightView& view, Bf16* to) {
  const int64_t row_bytes = view.cols * static_cast<int64_t>(sizeof(Bf16));
  const int64_t piece_rows = std::max<int64_t>(1, kPieceBytes / row_bytes);
  const int64_t task_rows = std::max<int64_t>(1, kTaskBytes / row_bytes);
  for (int64_t first = 0; first < view.rows; first += piece_rows) {
    const int64_t rows = std::min(piece_rows, view.rows - first);
    Piece& piece = ring_[pieces_++ % ring_.size()];
    device_.Wait(piece.copied);
    if (piece.memory.bytes() < rows * row_bytes) {
      LH_ASSIGN_OR_RETURN(piece.memory,
                          CudaPinnedBuffer::Allocate(std::max(kPieceBytes, row_bytes)));
    }
    auto* staged = reinterpret_cast<Bf16*>(piece.memory.data());
    ShareOut(pool_, (rows + task_rows - 1) / task_rows, [&](int64_t task, int worker) {
      const int64_t begin = task * task_rows;
      const int64_t end = std::min(rows, begin + task_rows);
      ToBf16(view, first + begin, first + end, staged + begin * view.cols);
    });
    device_.Copy(to + first * view.cols, staged, rows * row_bytes);
    piece.copied = device_.Record();
  }
  return absl::OkStatus();
}

}  // namespace longhaul
