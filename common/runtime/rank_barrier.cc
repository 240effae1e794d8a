#include "common/runtime/rank_barrier.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace longhaul {

absl::Status RankBarrier::Meet(int rank, absl::Status mine) {
  absl::MutexLock lock(&mutex_);
  statuses_[rank] = std::move(mine);
  // No later meeting can end before this rank has come to it, so the outcome is this one's.
  return Arrive(/*breakable=*/true) ? outcome_ : broken_;
}

void RankBarrier::Part() {
  absl::MutexLock lock(&mutex_);
  Arrive(/*breakable=*/false);
}

bool RankBarrier::Arrive(bool breakable) {
  if (breakable && !broken_.ok()) return false;
  if (++arrived_ == width_) {
    outcome_ = absl::OkStatus();
    for (absl::Status& status : statuses_) outcome_.Update(std::exchange(status, absl::Status()));
    arrived_ = 0;
    ++meetings_;
    return true;
  }
  const uint64_t meeting = meetings_;
  const auto over = [&] { return meetings_ > meeting || (breakable && !broken_.ok()); };
  mutex_.Await(absl::Condition(&over));
  return meetings_ > meeting;
}

void RankBarrier::Break(absl::Status why) {
  absl::MutexLock lock(&mutex_);
  if (!broken_.ok()) return;
  broken_ =
      absl::AbortedError(absl::StrCat("the tensor-parallel group has ended: ", why.message()));
}

absl::Status RankBarrier::status() const {
  absl::MutexLock lock(&mutex_);
  return broken_;
}

}  // namespace longhaul
