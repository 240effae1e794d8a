#include "decode_worker/grpc_prefill_client.h"

#include <grpcpp/grpcpp.h>

#include <deque>
#include <map>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/proto/longhaul.grpc.pb.h"
#include "common/rpc/channel.h"

namespace longhaul {
namespace {

// One call. It owns itself until gRPC has said OnDone; the Call object holds a share too. Commands
// wait for each other in a queue that the credit window bounds.
class Stream final : public grpc::ClientBidiReactor<PrefillCommand, PrefillEvent> {
 public:
  struct Sink {  // owner's loop only
    OnPrefillEvent on_event;
    OnPrefillDone done;
    bool closed = false;
  };

  Stream(std::shared_ptr<Loop> loop, OnPrefillEvent on_event, OnPrefillDone done)
      : loop_(std::move(loop)), sink_(std::make_shared<Sink>()) {
    sink_->on_event = std::move(on_event);
    sink_->done = std::move(done);
  }

  void Run(std::shared_ptr<Stream> self, Prefill::Stub& stub, PrefillCommand first) {
    self_ = std::move(self);
    stub.async()->Prefill(&context_, this);
    AddHold();  // until the last read: Send may come at any time before
    StartRead(&event_);
    StartCall();
    Send(std::move(first));
  }

  void Send(PrefillCommand command) {
    {
      absl::MutexLock lock(&mutex_);
      if (broken_) return;
      queue_.push_back(std::move(command));
      if (writing_) return;
      writing_ = true;
      current_ = std::move(queue_.front());
      queue_.pop_front();
      AddHold();  // the last read may be over before the write is started
    }
    StartWrite(&current_);
    RemoveHold();
  }

  // On the owner's loop.
  void Close() {
    sink_->closed = true;
    context_.TryCancel();
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) broken_ = true;
      if (broken_ || queue_.empty()) return;
      writing_ = true;
      current_ = std::move(queue_.front());
      queue_.pop_front();
    }
    StartWrite(&current_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      {
        absl::MutexLock lock(&mutex_);
        broken_ = true;
      }
      RemoveHold();
      return;
    }
    loop_->Post([sink = sink_, event = std::move(event_)]() mutable {
      if (!sink->closed) sink->on_event(std::move(event));
    });
    event_ = PrefillEvent();
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    loop_->Post([sink = sink_, status = FromGrpc(status)] {
      if (sink->closed) return;
      sink->closed = true;
      sink->done(status);
    });
    DropAside(std::move(self_));
  }

 private:
  const std::shared_ptr<Loop> loop_;
  const std::shared_ptr<Sink> sink_;
  grpc::ClientContext context_;
  PrefillEvent event_;
  absl::Mutex mutex_;
  std::deque<PrefillCommand> queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  PrefillCommand current_;  // of the write under way
  std::shared_ptr<Stream> self_;
};

class StreamCall final : public PrefillCall {
 public:
  explicit StreamCall(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {}
  ~StreamCall() override { stream_->Close(); }

  void Grant(int chunks) override {
    PrefillCommand command;
    command.mutable_grant()->set_chunks_granted(chunks);
    stream_->Send(std::move(command));
  }

 private:
  const std::shared_ptr<Stream> stream_;
};

class GrpcPrefillClient final : public PrefillClient {
 public:
  explicit GrpcPrefillClient(std::shared_ptr<Loop> loop) : loop_(std::move(loop)) {}

  std::unique_ptr<PrefillCall> Prefill(const std::string& address, PrefillCommand::Open open,
                                       OnPrefillEvent on_event, OnPrefillDone done) override {
    std::unique_ptr<longhaul::Prefill::Stub>& stub = stubs_[address];
    if (stub == nullptr) stub = longhaul::Prefill::NewStub(OpenChannel(address));
    PrefillCommand command;
    *command.mutable_open() = std::move(open);
    auto stream = std::make_shared<Stream>(loop_, std::move(on_event), std::move(done));
    stream->Run(stream, *stub, std::move(command));
    return std::make_unique<StreamCall>(std::move(stream));
  }

 private:
  const std::shared_ptr<Loop> loop_;
  std::map<std::string, std::unique_ptr<longhaul::Prefill::Stub>> stubs_;  // by address
};

}  // namespace

std::unique_ptr<PrefillClient> MakeGrpcPrefillClient(std::shared_ptr<Loop> owner_loop) {
  return std::make_unique<GrpcPrefillClient>(std::move(owner_loop));
}

}  // namespace longhaul
