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
  if (view.dtype == DType::kBF16) {
    for (int64_t row = first_row; row < end_row; ++row, to += view.cols) {
      std::memcpy(to, view.Row(row), view.row_bytes());
    }
    return;
  }
  std::vector<float> values(view.cols);
  for (int64_t row = first_row; row < end_row; ++row, to += view.cols) {
    DequantizeRow(view, row, values.data());
    for (int64_t i = 0; i < view.cols; ++i) to[i] = BF16FromF32(values[i]);
  }
}

// Neighbouring rows of a part, and where they go.
struct Run {
  const WeightView* part = nullptr;
  int64_t first = 0;  // of the part's rows
  int64_t rows = 0;
  int64_t to = 0;  // row of the result
};

std::vector<Run> InTurns(absl::Span<const WeightView> parts, int64_t turn_rows) {
  std::vector<Run> runs;
  int64_t to = 0;
  int64_t left = 1;
  for (int64_t first = 0; left > 0; first += turn_rows) {
    left = 0;
    for (const WeightView& part : parts) {
      const int64_t rows = std::min(turn_rows, part.rows - first);
      if (rows <= 0) continue;
      runs.push_back({&part, first, rows, to});
      to += rows;
      left += part.rows - first - rows;
    }
  }
  return runs;
}

// Rows [first, end) of the result.
void StageRows(absl::Span<const Run> runs, int64_t first, int64_t end, Bf16* to) {
  const auto after = std::upper_bound(runs.begin(), runs.end(), first,
                                      [](int64_t row, const Run& run) { return row < run.to; });
  for (auto run = after - 1; run != runs.end() && run->to < end; ++run) {
    const int64_t begin = std::max(first, run->to);
    const int64_t stop = std::min(end, run->to + run->rows);
    ToBf16(*run->part, run->first + begin - run->to, run->first + stop - run->to,
           to + (begin - first) * run->part->cols);
  }
}

}  // namespace

absl::Status WeightLoader::Load(absl::Span<const WeightView> parts, int64_t turn_rows, Bf16* to) {
  const std::vector<Run> runs = InTurns(parts, turn_rows);
  const int64_t all_rows = runs.back().to + runs.back().rows;
  const int64_t cols = parts[0].cols;
  const int64_t row_bytes = cols * static_cast<int64_t>(sizeof(Bf16));
  const int64_t piece_rows = std::max<int64_t>(1, kPieceBytes / row_bytes);
  const int64_t task_rows = std::max<int64_t>(1, kTaskBytes / row_bytes);
  for (int64_t first = 0; first < all_rows; first += piece_rows) {
    const int64_t rows = std::min(piece_rows, all_rows - first);
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
      StageRows(runs, first + begin, first + end, staged + begin * cols);
    });
    device_.Copy(to + first * cols, staged, rows * row_bytes);
    piece.copied = device_.Record();
  }
  return absl::OkStatus();
}

}  // namespace longhaul
