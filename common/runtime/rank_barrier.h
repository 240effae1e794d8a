// RankBarrier: where the threads of a group wait for each other, until somebody breaks it. Any
// thread.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace longhaul {

class RankBarrier {
 public:
  explicit RankBarrier(int width) : width_(width), statuses_(width) {}

  // Returns when all ranks have come: OK when all brought OK, else the error of the lowest rank
  // that brought one. Once broken, a meeting that not all have come to ends with status(). Either
  // way, all ranks are told the same.
  absl::Status Meet(int rank, absl::Status mine = absl::OkStatus());

  // Returns when all ranks have called it, broken or not: only after a Meet that was OK, by ranks
  // that will not wait for each other before.
  void Part();

  // Ends every Meet, now and from now on. `why` is not OK; the first one stays.
  void Break(absl::Status why);
  // OK, or Aborted with the reason.
  absl::Status status() const;

 private:
  // Counts the caller in. False when `breakable` and the meeting was broken before all had come.
  bool Arrive(bool breakable) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int width_;
  mutable absl::Mutex mutex_;
  absl::Status broken_;
  std::vector<absl::Status> statuses_;  // brought to the meeting under way, by rank
  absl::Status outcome_;                // of the last meeting
  int arrived_ = 0;
  uint64_t meetings_ = 0;
};

}  // namespace longhaul
