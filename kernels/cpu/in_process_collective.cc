#include "kernels/cpu/in_process_collective.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/runtime/rank_barrier.h"

namespace longhaul {
namespace {

struct Group {
  explicit Group(int width) : barrier(width), data(width) {}
  RankBarrier barrier;
  std::vector<float*> data;  // what each rank brought to the operation under way
};

class InProcessCollective final : public Collective {
 public:
  InProcessCollective(std::shared_ptr<Group> group, TensorShard shard)
      : group_(std::move(group)), shard_(shard) {}
  ~InProcessCollective() override {
    Abort(absl::AbortedError(absl::StrCat("rank ", shard_.rank, " is gone")));
  }

  TensorShard shard() const override { return shard_; }

  // Each rank adds up its share of the elements and hands the sums to all.
  void AllReduce(Tensor tensor) override {
    const std::vector<float*>& data = group_->data;
    if (!Bring(tensor.data)) return;
    const ShardRange share = ShareOf(tensor.rows * tensor.width, shard_);
    for (int64_t i = share.first; i < share.end(); ++i) {
      float sum = data[0][i];
      for (int rank = 1; rank < shard_.width; ++rank) sum += data[rank][i];
      for (float* const to : data) to[i] = sum;
    }
    group_->barrier.Part();
  }

  void Gather(Tensor out, Tensor part) override {
    if (!Bring(part.data)) return;
    for (int rank = 0; shard_.rank == 0 && rank < shard_.width; ++rank) {
      const ShardRange columns = ShareOf(out.width, {rank, shard_.width});
      for (int64_t row = 0; row < out.rows; ++row) {
        std::copy_n(group_->data[rank] + row * columns.count, columns.count,
                    out.data + row * out.width + columns.first);
      }
    }
    group_->barrier.Part();
  }

  absl::Status Agree(absl::Status mine) override {
    return group_->barrier.Meet(shard_.rank, std::move(mine));
  }
  void Abort(absl::Status why) override { group_->barrier.Break(std::move(why)); }
  absl::Status status() const override { return group_->barrier.status(); }

 private:
  // True when all ranks have brought theirs, and will stay until all have parted.
  bool Bring(float* data) {
    group_->data[shard_.rank] = data;
    return group_->barrier.Meet(shard_.rank).ok();
  }

  const std::shared_ptr<Group> group_;
  const TensorShard shard_;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> MakeInProcessCollectives(int width) {
  const auto group = std::make_shared<Group>(width);
  std::vector<std::unique_ptr<Collective>> ranks;
  for (int rank = 0; rank < width; ++rank) {
    ranks.push_back(std::make_unique<InProcessCollective>(group, TensorShard{rank, width}));
  }
  return ranks;
}

}  // namespace longhaul
