// RpcServer: a gRPC server for one service. Its reactors run on gRPC's threads and post to the
// service's Loop.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace longhaul {

class RpcServer {
 public:
  // Listens on "host:port"; port 0 lets the kernel choose. AlreadyExists when the port is taken.
  // `service` outlives the server.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const std::string& listen,
                                                          grpc::Service* service);
  // Stop(0).
  ~RpcServer();

  const std::string& address() const { return address_; }  // "127.0.0.1:41234"

  // Refuses new calls, lets open ones end, cancels what is left after `deadline_us`. Not from a
  // reactor.
  void Stop(int64_t deadline_us);

 private:
  RpcServer(std::unique_ptr<grpc::Server> server, std::string address)
      : server_(std::move(server)), address_(std::move(address)) {}
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace longhaul
