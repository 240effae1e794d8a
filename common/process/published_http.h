// PublishedHttp: the counts of an HTTP server in a registry that exists before the server and may
// outlive it.
#pragma once

#include <atomic>
#include <memory>

#include "common/http/http_server.h"
#include "common/metrics/metric_registry.h"

namespace longhaul {

class PublishedHttp {
 public:
  explicit PublishedHttp(MetricRegistry& registry);
  ~PublishedHttp() { Show(nullptr); }
  PublishedHttp(const PublishedHttp&) = delete;
  PublishedHttp& operator=(const PublishedHttp&) = delete;

  // Null before the server has started and from before its end: then the counts are zeros. Nobody
  // scrapes while a server that was shown is being destroyed.
  void Show(const HttpServer* server) { server_->store(server); }

 private:
  const std::shared_ptr<std::atomic<const HttpServer*>> server_;
};

}  // namespace longhaul
