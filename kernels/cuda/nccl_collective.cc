#include "kernels/cuda/nccl_collective.h"

#include <nccl.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/status.h"
#include "common/runtime/rank_barrier.h"
#include "common/runtime/run_and_wait.h"
#include "common/runtime/thread_loop.h"

namespace longhaul {
namespace {

// Operations that NCCL takes in one group.
constexpr int64_t kGroupedMax = 512;
// Sums beyond this size take the way of those below it.
constexpr int64_t kConnectFloats = int64_t{1} << 23;

// A rank's communicator: used by its device thread, ended by any.
class Communicator {
 public:
  void Set(ncclComm_t comm) {
    absl::MutexLock lock(&mutex_);
    comm_ = comm;
  }
  // call(comm), unless it has ended: then ncclSuccess, and nothing is done.
  template <typename Call>
  ncclResult_t Use(Call call) {
    absl::MutexLock lock(&mutex_);
    return comm_ == nullptr ? ncclSuccess : call(comm_);
  }
  // It has ended from now on: null where it had before.
  ncclComm_t Take() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(comm_, nullptr);
  }

 private:
  absl::Mutex mutex_;
  ncclComm_t comm_ = nullptr;
};

struct Group {
  explicit Group(int width) : barrier(width), communicators(width) {}
  // The last rank is gone, and all recordings with it: the aborts end.
  ~Group() {
    RunAndWait(aborts, [] {});
  }

  // Ends what is queued, too. NCCL's abort tells the kernels at once, but returns only when no
  // recorded step holds a communicator any more, and those go with their backends: so it has a
  // thread of its own.
  void End(absl::Status why) {
    barrier.Break(std::move(why));
    for (Communicator& communicator : communicators) {
      if (const ncclComm_t comm = communicator.Take()) {
        aborts.Post([comm] { (void)ncclCommAbort(comm); });
      }
    }
  }

  RankBarrier barrier;
  std::vector<Communicator> communicators;
  ThreadLoop aborts{{.name = "nccl-abort"}};
};

absl::Status NcclStatus(ncclResult_t result, absl::string_view what) {
  if (result == ncclSuccess) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(what, ": ", ncclGetErrorString(result)));
}

class NcclCollective final : public Collective {
 public:
  NcclCollective(std::shared_ptr<Group> group, TensorShard shard, CudaDevice& device)
      : group_(std::move(group)), shard_(shard), device_(device) {}
  ~NcclCollective() override {
    group_->End(absl::AbortedError(absl::StrCat("rank ", shard_.rank, " is gone")));
  }

  TensorShard shard() const override { return shard_; }

  void AllReduce(Tensor data) override {
    Queue("ncclAllReduce", [&](ncclComm_t comm) {
      return ncclAllReduce(data.data, data.data, data.rows * data.width, ncclFloat, ncclSum, comm,
                           device_.stream());
    });
  }

  // Row by row, straight to its place.
  void Gather(Tensor out, Tensor part) override {
    const int64_t rows_at_once = kGroupedMax / (shard_.width + 1);
    for (int64_t first = 0; first < part.rows; first += rows_at_once) {
      Queue("ncclSend", [&](ncclComm_t comm) {
        ncclGroupStart();
        for (int64_t row = first; row < std::min(part.rows, first + rows_at_once); ++row) {
          ncclSend(part.data + row * part.width, part.width, ncclFloat, 0, comm, device_.stream());
          for (int rank = 0; shard_.rank == 0 && rank < shard_.width; ++rank) {
            const ShardRange columns = ShareOf(out.width, {rank, shard_.width});
            ncclRecv(out.data + row * out.width + columns.first, columns.count, ncclFloat, rank,
                     comm, device_.stream());
          }
        }
        return ncclGroupEnd();
      });
    }
  }

  absl::Status Agree(absl::Status mine) override {
    return group_->barrier.Meet(shard_.rank, std::move(mine));
  }
  void Abort(absl::Status why) override { group_->End(std::move(why)); }
  absl::Status status() const override { return group_->barrier.status(); }

 private:
  template <typename Call>
  void Queue(absl::string_view what, Call call) {
    device_.Bind();
    const ncclResult_t result = group_->communicators[shard_.rank].Use(call);
    if (result != ncclSuccess) group_->End(NcclStatus(result, what));
  }

  const std::shared_ptr<Group> group_;
  const TensorShard shard_;
  CudaDevice& device_;
};

// NCCL connects ranks when an operation, or a size of it, first needs it, inside of the call, where
// a rank waits for the others and cannot be called off. So all is used once here, for all ranks by
// one thread.
absl::Status Connect(absl::Span<CudaDevice* const> devices,
                     absl::Span<const std::unique_ptr<Collective>> ranks) {
  std::vector<std::unique_ptr<DeviceBuffer>> memory;
  for (CudaDevice* const device : devices) {
    LH_ASSIGN_OR_RETURN(memory.emplace_back(),
                        device->Allocate(kConnectFloats * static_cast<int64_t>(sizeof(float))));
  }
  const auto floats = [&](size_t rank) { return reinterpret_cast<float*>(memory[rank]->data()); };
  for (int64_t count = 1; count <= kConnectFloats; count *= 8) {
    ncclGroupStart();
    for (size_t i = 0; i < ranks.size(); ++i) ranks[i]->AllReduce({floats(i), 1, count});
    LH_RETURN_IF_ERROR(NcclStatus(ncclGroupEnd(), "ncclAllReduce"));
  }
  ncclGroupStart();
  const auto width = static_cast<int64_t>(ranks.size());
  for (size_t i = 0; i < ranks.size(); ++i) {
    ranks[i]->Gather({floats(i), 1, width}, {floats(i) + width, 1, 1});
  }
  LH_RETURN_IF_ERROR(NcclStatus(ncclGroupEnd(), "ncclSend"));
  for (CudaDevice* const device : devices) device->Wait(device->Record());
  return ranks[0]->status();
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Collective>>> MakeNcclCollectives(
    absl::Span<CudaDevice* const> devices) {
  const int width = static_cast<int>(devices.size());
  if (width < 1 || width > kNcclRanksMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        width, " GPUs cannot share a model yet; use --tensor_parallel=1 to ", kNcclRanksMax));
  }
  std::vector<int> numbers;
  for (const CudaDevice* device : devices) numbers.push_back(device->number());
  std::vector<ncclComm_t> comms(width);
  LH_RETURN_IF_ERROR(
      NcclStatus(ncclCommInitAll(comms.data(), width, numbers.data()), "ncclCommInitAll"));
  const auto group = std::make_shared<Group>(width);
  std::vector<std::unique_ptr<Collective>> ranks;
  for (int rank = 0; rank < width; ++rank) {
    group->communicators[rank].Set(comms[rank]);
    ranks.push_back(
        std::make_unique<NcclCollective>(group, TensorShard{rank, width}, *devices[rank]));
  }
  LH_RETURN_IF_ERROR(Connect(devices, ranks));
  return ranks;
}

}  // namespace longhaul
