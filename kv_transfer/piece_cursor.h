// PieceCursor: walks a list of pieces in message order, for makers of Transport that copy between
// two lists which are cut differently.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kv_transfer/transport.h"

namespace longhaul {

template <typename Piece>
int64_t TotalBytes(const std::vector<Piece>& pieces) {
  int64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.bytes;
  return bytes;
}

template <typename Piece>
class PieceCursor {
 public:
  explicit PieceCursor(const std::vector<Piece>& pieces) : pieces_(&pieces) { SkipFinished(); }

  bool at_end() const { return index_ == pieces_->size(); }
  // Where the cursor stands and how many bytes lie there in one run.
  auto* data() const { return (*pieces_)[index_].data + offset_; }
  int64_t run_bytes() const { return (*pieces_)[index_].bytes - offset_; }
  // `bytes` may span pieces but not pass the end.
  void Advance(int64_t bytes) {
    while (bytes > 0) {
      const int64_t step = std::min(bytes, run_bytes());
      offset_ += step;
      bytes -= step;
      SkipFinished();
    }
  }

 private:
  void SkipFinished() {
    while (index_ < pieces_->size() && offset_ == (*pieces_)[index_].bytes) {
      ++index_;
      offset_ = 0;
    }
  }
  const std::vector<Piece>* pieces_;
  size_t index_ = 0;
  int64_t offset_ = 0;
};

using SendCursor = PieceCursor<SendPiece>;
using ReceiveCursor = PieceCursor<ReceivePiece>;

// Copies up to `bytes_max` bytes and moves both cursors; returns how many, fewer only where one
// list ends.
inline int64_t CopyPieces(SendCursor& from, ReceiveCursor& to, int64_t bytes_max) {
  int64_t copied = 0;
  while (copied < bytes_max && !from.at_end() && !to.at_end()) {
    const int64_t step = std::min({from.run_bytes(), to.run_bytes(), bytes_max - copied});
    std::memcpy(to.data(), from.data(), step);
    from.Advance(step);
    to.Advance(step);
    copied += step;
  }
  return copied;
}

}  // namespace longhaul
