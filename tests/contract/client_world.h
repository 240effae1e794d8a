// ClientWorld: what the contract suite of the client doors needs of a maker: a stream from an
// owner's loop to a worker's loop, the same for each door, and ways to wait. One world a test.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "common/engine/prefill_client.h"
#include "common/engine/worker_client.h"

namespace longhaul {

// A stream as the worker sees it; touched on the worker's loop only.
struct FarStream {
  int number = 0;                // what was asked for
  std::function<void(int)> say;  // an event
  std::function<void(absl::Status)> end;
  std::vector<int> grants;
  bool dropped = false;  // the worker's call was destroyed
};

// What the owner of a stream holds; touched on the owner's loop only.
class NearStream {
 public:
  virtual ~NearStream() = default;
  virtual void Grant(int chunks) = 0;  // nothing where the door has no grants
};

using OnWord = absl::AnyInvocable<void(int)>;
using OnEnd = absl::AnyInvocable<void(absl::Status)>;

class ClientWorld {
 public:
  virtual ~ClientWorld() = default;

  // On the owner's loop: asks the worker for `number`.
  virtual std::unique_ptr<NearStream> Open(int number, OnWord on_word, OnEnd on_end) = 0;
  // On the owner's loop: the same of a worker that is not there.
  virtual std::unique_ptr<NearStream> OpenToNobody(OnWord on_word, OnEnd on_end) = 0;
  // On the worker's loop: the streams that have reached it, in order.
  virtual const std::vector<std::shared_ptr<FarStream>>& streams() const = 0;

  // The worker's process is no more. From neither loop.
  virtual void Kill() = 0;

  // Runs `body` on that loop and returns after it.
  virtual void OnOwner(absl::FunctionRef<void()> body) = 0;
  virtual void OnWorker(absl::FunctionRef<void()> body) = 0;
  // Lets the world go on until `condition`, looked at on that loop, holds; false when it never
  // does, or not within 30 s.
  virtual bool AwaitOwner(absl::FunctionRef<bool()> condition) = 0;
  virtual bool AwaitWorker(absl::FunctionRef<bool()> condition) = 0;
  // Lets whatever is under way arrive.
  virtual void Settle() = 0;
};

// The doors: how a worker that does as it is told takes a call, and how an owner makes one.
struct GenerateDoor {
  class Worker final : public WorkerClient {
   public:
    std::unique_ptr<WorkerCall> Generate(GenerateRequest request, OnEvent on_event,
                                         OnDone done) override;
    std::unique_ptr<WorkerCall> WatchStatus(int64_t, OnStatus, OnDone) override { return nullptr; }
    std::vector<std::shared_ptr<FarStream>> streams;
  };
  static std::unique_ptr<NearStream> Open(WorkerClient& client, int number, OnWord on_word,
                                          OnEnd on_end);
};
struct StatusDoor {
  class Worker final : public WorkerClient {
   public:
    std::unique_ptr<WorkerCall> Generate(GenerateRequest, OnEvent, OnDone) override {
      return nullptr;
    }
    std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                            OnDone done) override;
    std::vector<std::shared_ptr<FarStream>> streams;
  };
  static std::unique_ptr<NearStream> Open(StatusClient& client, int number, OnWord on_word,
                                          OnEnd on_end);
};
struct PrefillDoor {
  class Worker final : public PrefillEndpoint {
   public:
    std::unique_ptr<PrefillCall> Prefill(PrefillCommand::Open open, OnPrefillEvent on_event,
                                         OnPrefillDone done) override;
    std::unique_ptr<WorkerCall> WatchStatus(int64_t, OnStatus, OnDone) override { return nullptr; }
    std::vector<std::shared_ptr<FarStream>> streams;
  };
  static std::unique_ptr<NearStream> Open(PrefillClient& client, const std::string& address,
                                          int number, OnWord on_word, OnEnd on_end);
};

}  // namespace longhaul
