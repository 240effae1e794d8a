// StatusStream: the reactor behind every service's Status method.
#pragma once

#include <memory>

#include "common/engine/worker_client.h"
#include "common/rpc/server_stream.h"

namespace longhaul {

class StatusStream final
    : public ServerStream<grpc::ServerWriteReactor<WorkerStatus>, WorkerStatus, WorkerCall> {
 public:
  static StatusStream* Start(Loop* loop, StatusClient* worker, const StatusRequest& request) {
    const auto stream = std::make_shared<StatusStream>(loop);
    stream->HoldSelf();
    stream->StartCall([stream, worker, period_us = request.period_us()] {
      return worker->WatchStatus(
          period_us, [stream](WorkerStatus status) { stream->Push(std::move(status)); },
          [stream](const absl::Status& status) { stream->End(status); });
    });
    return stream.get();
  }
  using ServerStream::ServerStream;
};

}  // namespace longhaul
