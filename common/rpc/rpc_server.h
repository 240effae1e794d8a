// RpcServer: a gRPC server and the one service it serves: a worker's face to others. The service's
// reactors run on gRPC's threads and post to the Loop of what they serve.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

// gRPC's own names, so that this header is quick to include.
namespace grpc {
class Server;
class Service;
}  // namespace grpc

namespace longhaul {

// Any thread may own it, but not a Loop that its calls post to: stopping waits for calls that the
// Loop must still answer.
class RpcServer {
 public:
  // Listens on "host:port"; port 0 lets the kernel choose. AlreadyExists when the port is taken.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const std::string& listen,
                                                          std::unique_ptr<grpc::Service> service);
  // Stop(0).
  ~RpcServer();

  const std::string& address() const { return address_; }  // "127.0.0.1:41234"

  // Refuses new calls, lets open ones end, cancels what is left after `deadline_us`. Not from a
  // reactor.
  void Stop(int64_t deadline_us);

 private:
  RpcServer(std::unique_ptr<grpc::Service> service, std::unique_ptr<grpc::Server> server,
            std::string address);
  const std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<grpc::Server> server_;
  const std::string address_;
};

}  // namespace longhaul
