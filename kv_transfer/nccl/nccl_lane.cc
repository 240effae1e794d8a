#include "kv_transfer/nccl/nccl_lane.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <pthread.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

enum Rank : int { kReceiver = 0, kSender = 1 };
constexpr int kRanks = 2;
// While bytes move the thread looks this often; the moves of a part take some ten times as long.
constexpr absl::Duration kLookPeriod = absl::Microseconds(5);

absl::Status NcclError(ncclResult_t result, absl::string_view what) {
  return absl::UnavailableError(
      absl::StrCat(what, ": ", ncclGetErrorString(result), " (", ncclGetLastError(nullptr), ")"));
}

absl::Status CudaError(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(what, ": ", cudaGetErrorString(error)));
}

// One message of the lane. A receiver's pieces without places are discarded.
struct Operation {
  std::vector<SendPiece> from;
  std::vector<ReceivePiece> to;
  LaneDone done;
  cudaEvent_t moved = nullptr;
};

class NcclLane final : public Lane {
 public:
  NcclLane(const NcclOptions& options, ncclUniqueId id, Rank rank)
      : options_(options), id_(id), rank_(rank), thread_([this] { Run(); }) {}
  ~NcclLane() override {
    {
      absl::MutexLock lock(&mutex_);
      aborted_ = stopping_ = true;
    }
    thread_.join();
  }

  void Join() override {
    absl::MutexLock lock(&mutex_);
    joined_ = true;
  }
  void Send(std::vector<SendPiece> pieces, LaneDone done) override {
    LH_CHECK(rank_ == kSender, "Send on the receiving end of a lane");
    Queue({std::move(pieces), {}, std::move(done)});
  }
  void Receive(std::vector<ReceivePiece> pieces, LaneDone done) override {
    LH_CHECK(rank_ == kReceiver, "Receive on the sending end of a lane");
    Queue({{}, std::move(pieces), std::move(done)});
  }
  void Discard(std::vector<int64_t> sizes, LaneDone done) override {
    std::vector<ReceivePiece> pieces;
    for (const int64_t bytes : sizes) pieces.push_back({nullptr, bytes});
    Receive(std::move(pieces), std::move(done));
  }
  void Abort() override {
    absl::MutexLock lock(&mutex_);
    aborted_ = true;
  }
  std::string path() const override { return "nccl"; }

 private:
  void Queue(Operation operation) {
    absl::MutexLock lock(&mutex_);
    queue_.push_back(std::move(operation));
  }
  bool aborted() {
    absl::MutexLock lock(&mutex_);
    return aborted_;
  }

  // The lane's own thread, from here on.
  void Run();
  absl::Status Move();
  absl::Status Open();
  // Waits until NCCL has done what it was asked for, or the lane is aborted.
  absl::Status Settle(ncclResult_t result, absl::string_view what);
  absl::Status Start(Operation& operation);
  // Ends the oldest operations that have moved all their bytes.
  absl::Status EndMoved();
  absl::Status ReserveSink(int64_t bytes);

  const NcclOptions options_;
  const ncclUniqueId id_;
  const Rank rank_;

  absl::Mutex mutex_;
  std::deque<Operation> queue_ ABSL_GUARDED_BY(mutex_);
  bool joined_ ABSL_GUARDED_BY(mutex_) = false;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  ncclComm_t communicator_ = nullptr;
  cudaStream_t stream_ = nullptr;
  std::deque<Operation> moving_;
  std::vector<cudaEvent_t> events_;     // not in use
  std::unique_ptr<DeviceBuffer> sink_;  // for what is discarded
  std::thread thread_;
};

void NcclLane::Run() {
  pthread_setname_np(pthread_self(), "nccl-lane");
  options_.memory->BindThread();
  const absl::Status status = Move();
  // The abort stops NCCL's kernels; then nothing of the lane touches a piece any more.
  if (communicator_ != nullptr) ncclCommAbort(communicator_);
  if (stream_ != nullptr) {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  for (Operation& operation : moving_) {
    cudaEventDestroy(operation.moved);
    std::move(operation.done)(status);
  }
  for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  sink_ = nullptr;
  while (true) {
    std::deque<Operation> rest;
    bool stopping = false;
    {
      absl::MutexLock lock(&mutex_);
      const auto is_due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !queue_.empty();
      };
      mutex_.Await(absl::Condition(&is_due));
      rest.swap(queue_);
      stopping = stopping_;
    }
    for (Operation& operation : rest) std::move(operation.done)(status);
    if (stopping) return;
  }
}

absl::Status NcclLane::Move() {
  {
    absl::MutexLock lock(&mutex_);
    const auto is_due = [this]()
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return joined_ || aborted_; };
    mutex_.Await(absl::Condition(&is_due));
  }
  LH_RETURN_IF_ERROR(Open());
  while (true) {
    std::optional<Operation> next;
    {
      absl::MutexLock lock(&mutex_);
      const auto is_due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return aborted_ || !queue_.empty();
      };
      if (moving_.empty()) {
        mutex_.Await(absl::Condition(&is_due));
      } else {
        mutex_.AwaitWithTimeout(absl::Condition(&is_due), kLookPeriod);
      }
      if (aborted_) return absl::CancelledError("the link was closed");
      if (!queue_.empty()) {
        next = std::move(queue_.front());
        queue_.pop_front();
      }
    }
    if (next.has_value()) {
      moving_.push_back(*std::move(next));
      LH_RETURN_IF_ERROR(Start(moving_.back()));
    }
    LH_RETURN_IF_ERROR(EndMoved());
  }
}

absl::Status NcclLane::Settle(ncclResult_t result, absl::string_view what) {
  while (result == ncclInProgress) {
    if (aborted()) return absl::CancelledError("the link was closed");
    absl::SleepFor(kLookPeriod);
    const ncclResult_t asked = ncclCommGetAsyncError(communicator_, &result);
    if (asked != ncclSuccess) result = asked;
  }
  if (result != ncclSuccess) return NcclError(result, what);
  return absl::OkStatus();
}

absl::Status NcclLane::Open() {
  LH_RETURN_IF_ERROR(
      CudaError(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream for NCCL"));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.maxCTAs = options_.blocks_max;
  return Settle(ncclCommInitRankConfig(&communicator_, kRanks, id_, rank_, &config),
                "NCCL does not reach the other end");
}

absl::Status NcclLane::ReserveSink(int64_t bytes) {
  if (sink_ != nullptr && sink_->bytes() >= bytes) return absl::OkStatus();
  // What was queued before may still write into the old one.
  LH_RETURN_IF_ERROR(CudaError(cudaStreamSynchronize(stream_), "what was to be discarded"));
  sink_ = nullptr;
  LH_ASSIGN_OR_RETURN(sink_, options_.memory->Allocate(bytes));
  return absl::OkStatus();
}

absl::Status NcclLane::Start(Operation& operation) {
  if (events_.empty()) {
    LH_RETURN_IF_ERROR(CudaError(cudaEventCreateWithFlags(&operation.moved, cudaEventDisableTiming),
                                 "an event for NCCL"));
  } else {
    operation.moved = events_.back();
    events_.pop_back();
  }
  int64_t discarded_bytes_max = 0;
  for (const ReceivePiece& piece : operation.to) {
    if (piece.data == nullptr) discarded_bytes_max = std::max(discarded_bytes_max, piece.bytes);
  }
  if (discarded_bytes_max > 0) LH_RETURN_IF_ERROR(ReserveSink(discarded_bytes_max));
  ncclResult_t result = ncclGroupStart();
  for (const SendPiece& piece : operation.from) {
    if (result != ncclSuccess) break;
    result = ncclSend(piece.data, piece.bytes, ncclInt8, kReceiver, communicator_, stream_);
  }
  for (const ReceivePiece& piece : operation.to) {
    if (result != ncclSuccess) break;
    result = ncclRecv(piece.data == nullptr ? sink_->data() : piece.data, piece.bytes, ncclInt8,
                      kSender, communicator_, stream_);
  }
  const ncclResult_t ended = ncclGroupEnd();
  LH_RETURN_IF_ERROR(Settle(result == ncclSuccess ? ended : result, "NCCL refuses a transfer"));
  return CudaError(cudaEventRecord(operation.moved, stream_), "an event after NCCL");
}

absl::Status NcclLane::EndMoved() {
  while (!moving_.empty()) {
    const cudaError_t moved = cudaEventQuery(moving_.front().moved);
    if (moved == cudaErrorNotReady) break;
    LH_RETURN_IF_ERROR(CudaError(moved, "NCCL's kernel failed"));
    Operation operation = std::move(moving_.front());
    moving_.pop_front();
    events_.push_back(operation.moved);
    std::move(operation.done)(absl::OkStatus());
  }
  ncclResult_t result = ncclSuccess;
  ncclCommGetAsyncError(communicator_, &result);
  if (result != ncclSuccess && result != ncclInProgress) {
    return NcclError(result, "the other end of the link broke");
  }
  return absl::OkStatus();
}

class NcclLaneMaker final : public LaneMaker {
 public:
  NcclLaneMaker(const NcclOptions& options, const cudaUUID_t& gpu) : options_(options), gpu_(gpu) {}

  std::string name() const override { return "nccl"; }

  absl::StatusOr<Offered> Offer() override {
    ncclUniqueId id;
    const ncclResult_t result = ncclGetUniqueId(&id);
    if (result != ncclSuccess) return NcclError(result, "NCCL does not start");
    return Offered{
        std::make_unique<NcclLane>(options_, id, kReceiver),
        std::string(gpu_.bytes, sizeof gpu_.bytes) + std::string(id.internal, sizeof id.internal)};
  }

  absl::StatusOr<std::unique_ptr<Lane>> Take(const std::string& address) override {
    ncclUniqueId id;
    constexpr size_t kBytes = sizeof gpu_.bytes + sizeof id.internal;
    if (address.size() != kBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("an NCCL address of ", address.size(), " bytes; they have ", kBytes));
    }
    if (std::memcmp(address.data(), gpu_.bytes, sizeof gpu_.bytes) == 0) {
      return absl::FailedPreconditionError(
          "both ends of the link are on one GPU, which NCCL does not join: give each worker a GPU "
          "of its own, or let KV go over UCX (--kv_transport=ucx)");
    }
    std::memcpy(id.internal, address.data() + sizeof gpu_.bytes, sizeof id.internal);
    return std::make_unique<NcclLane>(options_, id, kSender);
  }

 private:
  const NcclOptions options_;
  const cudaUUID_t gpu_;  // the first part of an address
};

}  // namespace

absl::StatusOr<std::unique_ptr<LaneMaker>> MakeNcclLanes(const NcclOptions& options) {
  if (options.memory == nullptr || options.memory->kind() != MemoryKind::kCuda) {
    return absl::InvalidArgumentError(
        "NCCL moves a GPU's memory only: use --backend=cuda, or let KV go over UCX "
        "(--kv_transport=ucx)");
  }
  options.memory->BindThread();
  int device = 0;
  cudaDeviceProp properties;
  LH_RETURN_IF_ERROR(CudaError(cudaGetDevice(&device), "cudaGetDevice"));
  LH_RETURN_IF_ERROR(
      CudaError(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  return std::make_unique<NcclLaneMaker>(options, properties.uuid);
}

}  // namespace longhaul
