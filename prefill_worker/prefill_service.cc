#include "prefill_worker/prefill_service.h"

#include <utility>

#include "common/proto/longhaul.grpc.pb.h"
#include "common/rpc/status_stream.h"

namespace longhaul {
namespace {

// The first command opens the prompt, the others grant chunks; anything else is a fault of the
// client.
class PrefillStream final
    : public ServerStream<grpc::ServerBidiReactor<PrefillCommand, PrefillEvent>, PrefillEvent,
                          PrefillCall> {
 public:
  static PrefillStream* Start(Loop* loop, PrefillEndpoint* worker) {
    const auto stream = std::make_shared<PrefillStream>(loop, worker);
    stream->HoldSelf();
    stream->StartRead(&stream->command_);
    return stream.get();
  }
  PrefillStream(Loop* loop, PrefillEndpoint* worker) : ServerStream(loop), worker_(worker) {}

  void OnReadDone(bool ok) override {
    if (!ok) return;  // the client says no more; its cancel comes by OnCancel
    const auto self = std::static_pointer_cast<PrefillStream>(shared_from_this());
    if (!opened_ && command_.has_open()) {
      opened_ = true;
      StartCall([self, worker = worker_, open = std::move(*command_.mutable_open())]() mutable {
        return worker->Prefill(
            std::move(open), [self](PrefillEvent event) { self->Push(std::move(event)); },
            [self](const absl::Status& status) { self->End(status); });
      });
    } else if (opened_ && command_.has_grant()) {
      OnCall(
          [chunks = command_.grant().chunks_granted()](PrefillCall& call) { call.Grant(chunks); });
    } else {
      End(absl::InvalidArgumentError("a prefill stream is one open command, then grants"));
      return;
    }
    command_.Clear();
    StartRead(&command_);
  }

 private:
  PrefillEndpoint* const worker_;
  PrefillCommand command_;
  bool opened_ = false;  // reads come one at a time
};

class Service final : public Prefill::CallbackService {
 public:
  Service(Loop* loop, PrefillEndpoint* worker) : loop_(loop), worker_(worker) {}

  grpc::ServerBidiReactor<PrefillCommand, PrefillEvent>* Prefill(
      grpc::CallbackServerContext*) override {
    return PrefillStream::Start(loop_, worker_);
  }
  grpc::ServerWriteReactor<WorkerStatus>* Status(grpc::CallbackServerContext*,
                                                 const StatusRequest* request) override {
    return StatusStream::Start(loop_, worker_, *request);
  }

 private:
  Loop* const loop_;
  PrefillEndpoint* const worker_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> StartPrefillService(const std::string& listen,
                                                               Loop* loop,
                                                               PrefillEndpoint* worker) {
  return RpcServer::Start(listen, std::make_unique<Service>(loop, worker));
}

}  // namespace longhaul
