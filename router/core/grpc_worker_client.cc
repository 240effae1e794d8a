#include "router/core/grpc_worker_client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "common/proto/longhaul.grpc.pb.h"
#include "common/rpc/channel.h"

namespace longhaul {
namespace {

// One server-streaming call. It owns itself until gRPC has said OnDone; the Call object holds a
// share too, for TryCancel. Events are read as fast as they come: a generation is bounded by its
// own length, a status stream by its period.
template <typename Request, typename Event>
class Stream final : public grpc::ClientReadReactor<Event> {
 public:
  using OnEvent = absl::AnyInvocable<void(Event)>;
  using OnEnd = absl::AnyInvocable<void(absl::Status)>;

  // Lives on the owner's loop.
  struct Sink {
    OnEvent on_event;
    OnEnd done;
    bool closed = false;
  };

  Stream(std::shared_ptr<Loop> loop, Request request, OnEvent on_event, OnEnd done)
      : loop_(std::move(loop)), request_(std::move(request)), sink_(std::make_shared<Sink>()) {
    sink_->on_event = std::move(on_event);
    sink_->done = std::move(done);
  }

  // `begin` hands the reactor to the stub.
  template <typename Begin>
  void Run(std::shared_ptr<Stream> self, Begin begin) {
    self_ = std::move(self);
    begin(&context_, &request_, this);
    this->StartRead(&event_);
    this->StartCall();
  }

  // On the owner's loop.
  void Close() {
    sink_->closed = true;
    context_.TryCancel();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    loop_->Post([sink = sink_, event = std::move(event_)]() mutable {
      if (!sink->closed) sink->on_event(std::move(event));
    });
    event_ = Event();
    this->StartRead(&event_);
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
  const Request request_;
  Event event_;
  const std::shared_ptr<Sink> sink_;
  grpc::ClientContext context_;
  std::shared_ptr<Stream> self_;
};

template <typename Request, typename Event>
class StreamCall final : public WorkerCall {
 public:
  template <typename Begin>
  StreamCall(std::shared_ptr<Loop> loop, Request request, absl::AnyInvocable<void(Event)> on_event,
             absl::AnyInvocable<void(absl::Status)> done, Begin begin)
      : stream_(std::make_shared<Stream<Request, Event>>(std::move(loop), std::move(request),
                                                         std::move(on_event), std::move(done))) {
    stream_->Run(stream_, begin);
  }
  ~StreamCall() override { stream_->Close(); }

 private:
  const std::shared_ptr<Stream<Request, Event>> stream_;
};

template <typename Stub>
std::unique_ptr<WorkerCall> Watch(std::shared_ptr<Loop> loop, Stub& stub, int64_t period_us,
                                  StatusClient::OnStatus on_status, StatusClient::OnDone done) {
  StatusRequest request;
  request.set_period_us(period_us);
  return std::make_unique<StreamCall<StatusRequest, WorkerStatus>>(
      std::move(loop), std::move(request), std::move(on_status), std::move(done),
      [&stub](auto* context, auto* sent, auto* reactor) {
        stub.async()->Status(context, sent, reactor);
      });
}

class GrpcWorkerClient final : public WorkerClient {
 public:
  GrpcWorkerClient(std::shared_ptr<Loop> loop, const std::string& address)
      : loop_(std::move(loop)), stub_(Decode::NewStub(OpenChannel(address))) {}

  std::unique_ptr<WorkerCall> Generate(GenerateRequest request, OnEvent on_event,
                                       OnDone done) override {
    return std::make_unique<StreamCall<GenerateRequest, GenerateEvent>>(
        loop_, std::move(request), std::move(on_event), std::move(done),
        [this](auto* context, auto* sent, auto* reactor) {
          stub_->async()->Generate(context, sent, reactor);
        });
  }
  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override {
    return Watch(loop_, *stub_, period_us, std::move(on_status), std::move(done));
  }

 private:
  const std::shared_ptr<Loop> loop_;
  const std::unique_ptr<Decode::Stub> stub_;
};

class GrpcPrefillStatusClient final : public StatusClient {
 public:
  GrpcPrefillStatusClient(std::shared_ptr<Loop> loop, const std::string& address)
      : loop_(std::move(loop)), stub_(Prefill::NewStub(OpenChannel(address))) {}

  std::unique_ptr<WorkerCall> WatchStatus(int64_t period_us, OnStatus on_status,
                                          OnDone done) override {
    return Watch(loop_, *stub_, period_us, std::move(on_status), std::move(done));
  }

 private:
  const std::shared_ptr<Loop> loop_;
  const std::unique_ptr<Prefill::Stub> stub_;
};

}  // namespace

std::unique_ptr<WorkerClient> MakeGrpcWorkerClient(std::shared_ptr<Loop> owner_loop,
                                                   const std::string& address) {
  return std::make_unique<GrpcWorkerClient>(std::move(owner_loop), address);
}

std::unique_ptr<StatusClient> MakeGrpcPrefillStatusClient(std::shared_ptr<Loop> owner_loop,
                                                          const std::string& address) {
  return std::make_unique<GrpcPrefillStatusClient>(std::move(owner_loop), address);
}

}  // namespace longhaul
