#include "router/core/router_app.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "router/core/service.h"

namespace longhaul {
namespace {

constexpr char kVersion[] = "0.1.0";

absl::Status Prefixed(absl::string_view what, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

}  // namespace

RouterApp::RouterApp(RouterOptions options) : options_(std::move(options)) {}

RouterApp::~RouterApp() { Shutdown(0); }

absl::StatusOr<std::unique_ptr<RouterApp>> RouterApp::Start(
    RouterOptions options, const RouterModel& model,
    const std::function<ClusterMembers(std::shared_ptr<Loop>)>& make_members) {
  auto app = std::unique_ptr<RouterApp>(new RouterApp(std::move(options)));
  RouterOptions& own = app->options_;
  ServiceOptions service;
  service.request_timeout_us = own.request_timeout_us;
  if (!own.api_keys.empty()) {
    absl::StatusOr<ApiKeys> keys = ApiKeys::Parse(own.api_keys);
    if (!keys.ok()) return Prefixed("the API key file", keys.status());
    service.api_keys = *std::move(keys);
  }
  own.cluster.model_digest = model.digest;
  own.dispatcher.context_tokens_max = model.context_tokens_max;
  LH_ASSIGN_OR_RETURN(app->policy_, MakePolicy(own.policy, own.policy_options));
  LH_RETURN_IF_ERROR(app->LoadText(model));

  app->loop_ = std::make_shared<ThreadLoop>(ThreadLoopOptions{.name = "router"});
  app->text_loop_ = std::make_unique<ThreadLoop>(ThreadLoopOptions{.name = "router-text"});
  ClusterMembers members = make_members(app->loop_);
  if (members.decode.empty()) {
    return absl::InvalidArgumentError("a router needs at least one decode worker");
  }
  app->prefill_workers_ = static_cast<int>(members.prefill.size());
  Loop* const loop = app->loop_.get();
  app->metrics_ = std::make_unique<RouterMetricsFeed>();
  app->begun_us_ = loop->NowUs();
  app->cluster_ = std::make_unique<Cluster>(loop, own.cluster, std::move(members));
  app->dispatcher_ =
      std::make_unique<Dispatcher>(loop, app->cluster_.get(), app->policy_.get(), own.dispatcher);
  AdminSources admin;
  admin.metrics = [feed = app->metrics_.get()] { return feed->Text(); };
  admin.ready = [raw = app.get()] { return raw->Ready(); };
  admin.version = [name = own.name, served = app->model_.name] {
    return absl::StrFormat(R"({"version":"%s","role":"router","name":"%s","model":"%s"})", kVersion,
                           name, served);
  };
  app->service_ =
      std::make_unique<Service>(loop, app->text_loop_.get(), app->dispatcher_.get(), &app->model_,
                                app->metrics_.get(), std::move(admin), service);
  // From here on the loop owns them.
  loop->Post([cluster = app->cluster_.get()] { cluster->Start(); });
  LH_ASSIGN_OR_RETURN(app->http_, HttpServer::Start(own.http, app->service_.get()));
  return app;
}

absl::Status RouterApp::LoadText(const RouterModel& model) {
  model_.name = options_.served_model_name;
  model_.system_fingerprint = absl::StrFormat("lh-%016x", model.digest.high);
  model_.context_tokens_max = model.context_tokens_max;
  model_.created_s = options_.started_s;
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Make(model.tokenizer);
  if (!tokenizer.ok()) return Prefixed("the model's tokenizer", tokenizer.status());
  model_.tokenizer = *std::move(tokenizer);
  return absl::OkStatus();
}

absl::Status RouterApp::Ready() const {
  if (draining_) return absl::UnavailableError("shutting down");
  const Cluster::ReadyCounts ready = cluster_->ready_counts();
  if (ready.decode == 0) return absl::UnavailableError("no decode worker is ready");
  if (prefill_workers_ == 0 || ready.prefill > 0) return absl::OkStatus();
  if (!options_.policy_options.local_prefill) {
    return absl::UnavailableError("no prefill worker is ready");
  }
  if (loop_->NowUs() - begun_us_ < options_.prefill_grace_us) {
    return absl::UnavailableError("no prefill worker is ready yet");
  }
  return absl::OkStatus();
}

void RouterApp::Shutdown(int64_t deadline_us) {
  if (stopped_) return;
  stopped_ = true;
  draining_ = true;
  if (http_ != nullptr) http_->Stop(deadline_us);
  if (text_loop_ != nullptr) text_loop_->Stop();
  // After it nothing runs on the loop, so what lives there may be destroyed here.
  if (loop_ != nullptr) loop_->Stop();
  service_.reset();
  dispatcher_.reset();
  cluster_.reset();
  http_.reset();
}

}  // namespace longhaul
