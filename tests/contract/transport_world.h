// TransportWorld: what the contract suite of the Transport door needs of a maker: two transports,
// their loops, and a way to wait. One world a test.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/runtime/loop.h"
#include "common/runtime/thread_loop.h"
#include "kv_transfer/transport.h"

namespace longhaul {

// What became of one operation. Read inside TransportWorld::Await or Look.
struct Outcome {
  int times = 0;
  absl::Status status;
};

class TransportWorld {
 public:
  virtual ~TransportWorld() = default;

  virtual Transport& receiver() = 0;
  virtual Transport& sender() = 0;

  // Runs `body` on the loop of that side and returns after it.
  virtual void OnReceiver(absl::FunctionRef<void()> body) = 0;
  virtual void OnSender(absl::FunctionRef<void()> body) = 0;

  // Lets the world go on until `condition` holds; false when it never will, or after 30 s.
  virtual bool Await(absl::FunctionRef<bool()> condition) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&condition), absl::Seconds(30));
  }

  // Runs `body` while no outcome changes.
  void Look(absl::FunctionRef<void()> body) {
    absl::MutexLock lock(&mutex_);
    body();
  }

 private:
  absl::Mutex mutex_;
};

// Two sides on threads of their own, or on one.
class ThreadedWorld : public TransportWorld {
 public:
  void OnReceiver(absl::FunctionRef<void()> body) override { RunOn(receiver_loop(), body); }
  void OnSender(absl::FunctionRef<void()> body) override { RunOn(sender_loop(), body); }

 protected:
  virtual Loop& receiver_loop() = 0;
  virtual Loop& sender_loop() = 0;

 private:
  static void RunOn(Loop& loop, absl::FunctionRef<void()> body) {
    absl::Notification finished;
    loop.Post([&] {
      body();
      finished.Notify();
    });
    finished.WaitForNotification();
  }
};

// Transports that drive themselves as the Pollers of their loops: one for each side, or one for
// both, whose loop then has both.
template <typename PolledTransport>
class PolledWorld final : public ThreadedWorld {
 public:
  PolledWorld(std::unique_ptr<PolledTransport> receiver, std::unique_ptr<PolledTransport> sender)
      : receiver_(std::move(receiver)), sender_(std::move(sender)) {}
  explicit PolledWorld(std::unique_ptr<PolledTransport> both)
      : PolledWorld(std::move(both), nullptr) {}

  Transport& receiver() override { return *receiver_; }
  Transport& sender() override { return sender_ == nullptr ? *receiver_ : *sender_; }

 private:
  Loop& receiver_loop() override { return receiver_loop_; }
  Loop& sender_loop() override { return sender_ == nullptr ? receiver_loop_ : sender_loop_; }

  std::unique_ptr<PolledTransport> receiver_;
  std::unique_ptr<PolledTransport> sender_;  // null: the receiver
  ThreadLoop receiver_loop_{{.name = "receiver"}, receiver_.get()};
  ThreadLoop sender_loop_{{.name = "sender"}, sender_.get()};
};

struct TransportMaker {
  std::string name;
  std::unique_ptr<TransportWorld> (*make)();  // null where this machine cannot have it
};

}  // namespace longhaul
