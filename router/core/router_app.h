// RouterApp: a whole router in one process: loops, cluster, policy, dispatcher, service and HTTP
// server. router/main.cc gives it gRPC clients, the standalone direct ones.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/hash.h"
#include "common/http/http_server.h"
#include "common/metrics/metric_registry.h"
#include "common/model/tokenizer_data.h"
#include "common/process/published_http.h"
#include "common/runtime/thread_loop.h"
#include "router/core/cluster.h"
#include "router/core/dispatcher.h"
#include "router/core/router_observer.h"
#include "router/core/served_model.h"
#include "router/policy/policy.h"

namespace longhaul {

class Service;

struct RouterOptions {
  std::string name = "router-0";
  std::string served_model_name;  // what clients call the model; not empty
  std::string policy = "context-length";
  PolicyOptions policy_options;
  ClusterOptions cluster;        // its model_digest is the model's
  DispatcherOptions dispatcher;  // its context_tokens_max is the model's
  HttpServerOptions http;
  std::string api_keys;            // contents of the key file; empty: everybody may ask
  int64_t request_timeout_us = 0;  // of a generation; 0: none
  // Ready without a prefill worker after this long: until then they may only be late.
  int64_t prefill_grace_us = 10'000'000;
  // Where its metrics go and what /metrics shows; null: a registry of its own. A process that also
  // has workers shares one.
  std::shared_ptr<MetricRegistry> metrics;
  int64_t started_s = 0;  // seconds since 1970, for `created`
};

// What the router takes from a model file.
struct RouterModel {
  TokenizerData tokenizer;
  int64_t context_tokens_max = 0;
  Hash128 digest;
};

class RouterApp {
 public:
  // `make_members` is called once, with the Loop that the clients' callbacks must come on; a client
  // may keep that Loop alive. Listens when it returns. Errors: a tokenizer or chat template that
  // cannot be used, an unknown policy, no decode worker, a taken port.
  static absl::StatusOr<std::unique_ptr<RouterApp>> Start(
      RouterOptions options, const RouterModel& model,
      const std::function<ClusterMembers(std::shared_ptr<Loop>)>& make_members);
  // Shutdown(0).
  ~RouterApp();

  // Refuses new connections and lets running answers end for `deadline_us`, then cuts them off.
  // Idempotent; not from the Loop or an edge thread.
  void Shutdown(int64_t deadline_us);

  // "127.0.0.1:8000"; until Shutdown.
  std::string http_address() const { return http_->address(); }
  // OK when a request would be placed. Any thread.
  absl::Status Ready() const;

 private:
  explicit RouterApp(RouterOptions options);
  absl::Status LoadText(const RouterModel& model);
  void Observe();
  // On the loop, once a second.
  void SampleMetrics();

  RouterOptions options_;
  int prefill_workers_ = 0;
  int64_t begun_us_ = 0;
  std::atomic<bool> draining_{false};
  bool stopped_ = false;
  std::shared_ptr<ThreadLoop> loop_;
  std::unique_ptr<ThreadLoop> text_loop_;
  ServedModel model_;
  std::unique_ptr<RouterObserver> observer_;
  // On loop_.
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<PublishedHttp> published_http_;
};

}  // namespace longhaul
