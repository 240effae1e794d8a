#include "decode_worker/decode_service.h"

#include <utility>

#include "common/proto/longhaul.grpc.pb.h"
#include "common/rpc/status_stream.h"

namespace longhaul {
namespace {

class GenerateStream final
    : public ServerStream<grpc::ServerWriteReactor<GenerateEvent>, GenerateEvent, WorkerCall> {
 public:
  static GenerateStream* Start(Loop* loop, WorkerClient* worker, const GenerateRequest& request) {
    const auto stream = std::make_shared<GenerateStream>(loop);
    stream->HoldSelf();
    stream->StartCall([stream, worker, request]() mutable {
      return worker->Generate(
          std::move(request), [stream](GenerateEvent event) { stream->Push(std::move(event)); },
          [stream](const absl::Status& status) { stream->End(status); });
    });
    return stream.get();
  }
  using ServerStream::ServerStream;
};

class Service final : public Decode::CallbackService {
 public:
  Service(Loop* loop, WorkerClient* worker) : loop_(loop), worker_(worker) {}

  grpc::ServerWriteReactor<GenerateEvent>* Generate(grpc::CallbackServerContext*,
                                                    const GenerateRequest* request) override {
    return GenerateStream::Start(loop_, worker_, *request);
  }
  grpc::ServerWriteReactor<WorkerStatus>* Status(grpc::CallbackServerContext*,
                                                 const StatusRequest* request) override {
    return StatusStream::Start(loop_, worker_, *request);
  }

 private:
  Loop* const loop_;
  WorkerClient* const worker_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> StartDecodeService(const std::string& listen, Loop* loop,
                                                              WorkerClient* worker) {
  return RpcServer::Start(listen, std::make_unique<Service>(loop, worker));
}

}  // namespace longhaul
