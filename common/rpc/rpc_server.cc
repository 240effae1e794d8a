#include "common/rpc/rpc_server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/service_type.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/rpc/channel.h"

namespace longhaul {

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(
    const std::string& listen, std::unique_ptr<grpc::Service> service) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("--listen=", listen, " is not host:port"));
  }
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(kRpcMessageBytesMax);
  builder.SetMaxSendMessageSize(kRpcMessageBytesMax);
  // Two workers on one port would each get some of the other's calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1'000);
  // A client whose host vanished says nothing any more; its calls must end all the same.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kRpcPingMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kRpcPingTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.RegisterService(service.get());
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::AlreadyExistsError(
        absl::StrCat("cannot listen on ", listen,
                     ": the port is taken or the address is not this host's; choose "
                     "another --listen=host:port, port 0 takes a free one"));
  }
  return std::unique_ptr<RpcServer>(new RpcServer(
      std::move(service), std::move(server), absl::StrCat(listen.substr(0, colon), ":", port)));
}

RpcServer::RpcServer(std::unique_ptr<grpc::Service> service, std::unique_ptr<grpc::Server> server,
                     std::string address)
    : service_(std::move(service)), server_(std::move(server)), address_(std::move(address)) {}

RpcServer::~RpcServer() { Stop(0); }

void RpcServer::Stop(int64_t deadline_us) {
  if (server_ == nullptr) return;
  server_->Shutdown(absl::ToChronoTime(absl::Now() + absl::Microseconds(deadline_us)));
  server_->Wait();
  server_.reset();
}

}  // namespace longhaul
