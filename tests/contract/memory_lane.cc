#include "tests/contract/memory_lane.h"

#include <cstring>
#include <deque>
#include <map>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/check.h"

namespace longhaul {
namespace {

struct Operation {
  std::vector<SendPiece> from;
  std::vector<ReceivePiece> to;  // without places: discarded
  LaneDone done;
};

// Both ends of a lane. A thread of its own moves what has met.
class Wire {
 public:
  enum End { kReceiver = 0, kSender = 1 };

  ~Wire() {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    mover_.join();
  }

  void Add(End end, Operation operation) {
    absl::MutexLock lock(&mutex_);
    queues_[end].push_back(std::move(operation));
  }
  void Join(End end) {
    absl::MutexLock lock(&mutex_);
    joined_[end] = true;
  }
  void Abort(End end) {
    absl::MutexLock lock(&mutex_);
    aborted_[end] = true;
  }
  void AwaitQuiet(End end) {
    absl::MutexLock lock(&mutex_);
    const auto quiet = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return queues_[end].empty() && !moving_;
    };
    mutex_.Await(absl::Condition(&quiet));
  }

 private:
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || CanMove() || CanEnd(kReceiver) || CanEnd(kSender);
  }
  bool CanMove() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !aborted_[0] && !aborted_[1] && joined_[0] && joined_[1] && !queues_[0].empty() &&
           !queues_[1].empty();
  }
  bool CanEnd(End end) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return aborted_[end] && !queues_[end].empty();
  }

  static void Copy(const Operation& send, const Operation& receive) {
    LH_CHECK(send.from.size() == receive.to.size(), "the ends cut a message differently");
    for (size_t i = 0; i < send.from.size(); ++i) {
      LH_CHECK(send.from[i].bytes == receive.to[i].bytes && send.from[i].bytes > 0,
               absl::StrCat("a piece of ", send.from[i].bytes, " bytes met one of ",
                            receive.to[i].bytes));
      if (receive.to[i].data == nullptr) continue;
      std::memcpy(receive.to[i].data, send.from[i].data, send.from[i].bytes);
    }
  }

  void Move() {
    absl::MutexLock lock(&mutex_);
    while (true) {
      mutex_.Await(absl::Condition(this, &Wire::HasWork));
      if (stopping_) return;
      Operation ended[2];
      absl::Status status;
      const bool moves = CanMove();
      for (const End end : {kReceiver, kSender}) {
        if (!moves && !CanEnd(end)) continue;
        ended[end] = std::move(queues_[end].front());
        queues_[end].pop_front();
      }
      moving_ = true;
      mutex_.Unlock();
      if (moves) {
        Copy(ended[kSender], ended[kReceiver]);
      } else {
        status = absl::CancelledError("the lane was aborted");
      }
      for (Operation& operation : ended) {
        if (operation.done) std::move(operation.done)(status);
      }
      mutex_.Lock();
      moving_ = false;
    }
  }

  absl::Mutex mutex_;
  std::deque<Operation> queues_[2] ABSL_GUARDED_BY(mutex_);
  bool joined_[2] ABSL_GUARDED_BY(mutex_) = {};
  bool aborted_[2] ABSL_GUARDED_BY(mutex_) = {};
  bool moving_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread mover_{[this] { Move(); }};
};

class MemoryLane final : public Lane {
 public:
  MemoryLane(std::shared_ptr<Wire> wire, Wire::End end) : wire_(std::move(wire)), end_(end) {}
  ~MemoryLane() override {
    wire_->Abort(end_);
    wire_->AwaitQuiet(end_);
  }

  void Join() override { wire_->Join(end_); }
  void Send(std::vector<SendPiece> pieces, LaneDone done) override {
    LH_CHECK(end_ == Wire::kSender, "a receiver sends");
    wire_->Add(end_, {std::move(pieces), {}, std::move(done)});
  }
  void Receive(std::vector<ReceivePiece> pieces, LaneDone done) override {
    LH_CHECK(end_ == Wire::kReceiver, "a sender receives");
    wire_->Add(end_, {{}, std::move(pieces), std::move(done)});
  }
  void Discard(std::vector<int64_t> sizes, LaneDone done) override {
    std::vector<ReceivePiece> pieces;
    for (const int64_t bytes : sizes) pieces.push_back({nullptr, bytes});
    Receive(std::move(pieces), std::move(done));
  }
  void Abort() override { wire_->Abort(end_); }
  std::string path() const override { return "memory"; }

 private:
  const std::shared_ptr<Wire> wire_;
  const Wire::End end_;
};

absl::Mutex offers_mutex(absl::kConstInit);
int64_t next_offer ABSL_GUARDED_BY(offers_mutex) = 0;

std::map<int64_t, std::weak_ptr<Wire>>& Offers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(offers_mutex) {
  static auto* const offers = new std::map<int64_t, std::weak_ptr<Wire>>();
  return *offers;
}

}  // namespace

absl::StatusOr<LaneMaker::Offered> MemoryLaneMaker::Offer() {
  auto wire = std::make_shared<Wire>();
  absl::MutexLock lock(&offers_mutex);
  Offers()[next_offer] = wire;
  return Offered{std::make_unique<MemoryLane>(std::move(wire), Wire::kReceiver),
                 absl::StrCat(next_offer++)};
}

absl::StatusOr<std::unique_ptr<Lane>> MemoryLaneMaker::Take(const std::string& address) {
  absl::MutexLock lock(&offers_mutex);
  int64_t offer = -1;
  if (!absl::SimpleAtoi(address, &offer) || !Offers().contains(offer)) {
    return absl::InvalidArgumentError("nobody offers this lane");
  }
  std::shared_ptr<Wire> wire = Offers()[offer].lock();
  if (wire == nullptr) return absl::UnavailableError("the lane of this address is gone");
  return std::make_unique<MemoryLane>(std::move(wire), Wire::kSender);
}

}  // namespace longhaul
