#include "deploy/worker/worker_admin.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/process/flags.h"
#include "common/process/version.h"

namespace longhaul {

WorkerAdmin::WorkerAdmin(std::string role, std::string name, MetricRegistry* registry)
    : routes_(AdminSources{.metrics = [registry] { return registry->Text(); },
                           .ready =
                               [this] {
                                 return draining_
                                            ? absl::UnavailableError("the worker is shutting down")
                                            : absl::OkStatus();
                               },
                           .version =
                               [role = std::move(role), name = std::move(name)] {
                                 return absl::StrCat(R"({"version":")", kVersion, R"(","role":")",
                                                     role, R"(","name":")", name, R"("})");
                               }}),
      published_(*registry) {}

absl::Status WorkerAdmin::Start(const std::string& listen) {
  LH_ASSIGN_OR_RETURN(const HostPort address, ParseHostPort("--http", listen));
  HttpServerOptions options;
  options.address = address.host;
  options.port = address.port;
  options.threads = 1;
  options.connections_max = 64;
  options.port_flag = "--http";
  LH_ASSIGN_OR_RETURN(server_, HttpServer::Start(options, &routes_));
  published_.Show(server_.get());
  address_ = server_->address();
  return absl::OkStatus();
}

void WorkerAdmin::Stop() {
  if (server_ != nullptr) server_->Stop(0);
}

}  // namespace longhaul
