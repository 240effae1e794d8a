// ServerStream: the sending half of a server's streaming call. Events come from the service's Loop
// and leave one by one on gRPC's threads; the queue between them is bounded by what one call can
// produce.
#pragma once

#include <grpcpp/grpcpp.h>

#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc/channel.h"
#include "common/runtime/loop.h"

namespace longhaul {

// `Reactor`: grpc::ServerWriteReactor<Event> or grpc::ServerBidiReactor<_, Event>. Owns itself
// until gRPC says OnDone; whoever else holds a share may push to it at any time.
template <typename Reactor, typename Event, typename Call>
class ServerStream : public Reactor,
                     public std::enable_shared_from_this<ServerStream<Reactor, Event, Call>> {
 public:
  explicit ServerStream(Loop* loop) : loop_(loop), held_(std::make_shared<Held>()) {}

  // Any thread. After the call has ended they change nothing.
  void Push(Event event) {
    {
      absl::MutexLock lock(&mutex_);
      if (finished_ || ended_) return;
      queue_.push_back(std::move(event));
    }
    Pump();
  }
  void End(const absl::Status& status) {
    {
      absl::MutexLock lock(&mutex_);
      if (finished_ || ended_) return;
      ended_ = true;
      status_ = status;
    }
    Pump();
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) {  // the client is gone: OnCancel tells the worker
        queue_.clear();
        ended_ = true;
      }
    }
    Pump();
  }
  // gRPC keeps the call, and its server's shutdown waits, until somebody finishes it.
  void OnCancel() override {
    DropCall();
    End(absl::CancelledError("the client went away"));
  }
  void OnDone() override {
    DropCall();
    const auto last_share = std::move(self_);
  }

 protected:
  // Keeps the object until OnDone; call it before the reactor is handed to gRPC.
  void HoldSelf() { self_ = this->shared_from_this(); }

  // Runs `start` on the Loop and keeps the call that it returns until the stream ends.
  void StartCall(std::function<std::unique_ptr<Call>()> start) {
    loop_->Post([held = held_, start = std::move(start)] {
      if (!held->dropped) held->call = start();
    });
  }
  void OnCall(std::function<void(Call&)> task) {
    loop_->Post([held = held_, task = std::move(task)] {
      if (held->call != nullptr) task(*held->call);
    });
  }

 private:
  struct Held {  // Loop only
    std::unique_ptr<Call> call;
    bool dropped = false;
  };

  void DropCall() {
    loop_->Post([held = held_] {
      held->dropped = true;
      held->call.reset();
    });
  }

  // Starts the next write or the finish. gRPC is called without the lock: it may answer at once.
  void Pump() {
    bool finish = false;
    {
      absl::MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      if (!queue_.empty()) {
        writing_ = true;
        current_ = std::move(queue_.front());
        queue_.pop_front();
      } else if (ended_) {
        finished_ = finish = true;
      } else {
        return;
      }
    }
    if (finish) {
      this->Finish(ToGrpc(status_));
    } else {
      this->StartWrite(&current_);
    }
  }

  Loop* const loop_;
  const std::shared_ptr<Held> held_;
  std::shared_ptr<ServerStream> self_;
  absl::Mutex mutex_;
  std::deque<Event> queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  Event current_;        // of the write under way
  absl::Status status_;  // written before finished_
};

}  // namespace longhaul
