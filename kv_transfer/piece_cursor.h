// PieceCursor: walks a list of pieces in message order, for makers of Transport that copy between
// two lists which are cut differently.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/model/kv_memory.h"
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

// Which bytes go where: runs that lie in one piece on both sides, up to `bytes_max` bytes, fewer
// only where one list ends. Moves both cursors.
inline std::vector<KvMemory::Run> PairedRuns(SendCursor& from, ReceiveCursor& to,
                                             int64_t bytes_max) {
  std::vector<KvMemory::Run> runs;
  while (bytes_max > 0 && !from.at_end() && !to.at_end()) {
    const int64_t step = std::min({from.run_bytes(), to.run_bytes(), bytes_max});
    runs.push_back({to.data(), from.data(), step});
    from.Advance(step);
    to.Advance(step);
    bytes_max -= step;
  }
  return runs;
}

// Copies them in host memory; returns how many bytes.
inline int64_t CopyPieces(SendCursor& from, ReceiveCursor& to, int64_t bytes_max) {
  int64_t copied = 0;
  for (const KvMemory::Run& run : PairedRuns(from, to, bytes_max)) {
    std::memcpy(run.to, run.from, run.bytes);
    copied += run.bytes;
  }
  return copied;
}

}  // namespace longhaul
