// WorkerAdmin: a worker's HTTP face to its operators: /metrics, /livez, /readyz, /version. Owned by
// a main; /livez and /readyz are answered on edge threads, so that they work however busy the
// worker is.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/http/admin_routes.h"
#include "common/http/http_server.h"
#include "common/metrics/metric_registry.h"
#include "common/process/published_http.h"

namespace longhaul {

class WorkerAdmin {
 public:
  // /metrics shows `registry`, to which the server's own counts are added; it outlives the admin.
  WorkerAdmin(std::string role, std::string name, MetricRegistry* registry);
  ~WorkerAdmin() { Stop(); }

  // Listens on "host:port"; port 0 takes a free one.
  absl::Status Start(const std::string& listen);
  const std::string& address() const { return address_; }
  // From now on /readyz says no.
  void SetDraining() { draining_ = true; }
  void Stop();

 private:
  std::atomic<bool> draining_{false};
  AdminRoutes routes_;
  std::unique_ptr<HttpServer> server_;
  PublishedHttp published_;  // goes before the server
  std::string address_;
};

}  // namespace longhaul
