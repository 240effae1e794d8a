#include "router/core/router_app.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/metrics/worker_metrics.h"
#include "common/process/version.h"
#include "router/core/service.h"
#include "router/text/chat_template.h"

namespace longhaul {
namespace {

constexpr int64_t kSamplePeriodUs = 1'000'000;

std::string TextOfToken(const Tokenizer& tokenizer, int32_t token) {
  return token < 0 ? "" : std::string(tokenizer.TokenBytes(token));
}

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
  app->Observe();
  app->begun_us_ = loop->NowUs();
  app->cluster_ = std::make_unique<Cluster>(loop, own.cluster, std::move(members));
  app->dispatcher_ =
      std::make_unique<Dispatcher>(loop, app->cluster_.get(), app->policy_.get(), own.dispatcher);
  AdminSources admin;
  admin.metrics = [registry = own.metrics] { return registry->Text(); };
  admin.ready = [raw = app.get()] { return raw->Ready(); };
  admin.version = [name = own.name, served = app->model_.name] {
    return absl::StrFormat(R"({"version":"%s","role":"router","name":"%s","model":"%s"})", kVersion,
                           name, served);
  };
  app->service_ =
      std::make_unique<Service>(loop, app->text_loop_.get(), app->dispatcher_.get(), &app->model_,
                                app->observer_.get(), std::move(admin), service);
  // From here on the loop owns them.
  loop->Post([raw = app.get()] {
    raw->cluster_->Start();
    raw->SampleMetrics();
  });
  LH_ASSIGN_OR_RETURN(app->http_, HttpServer::Start(own.http, app->service_.get()));
  app->published_http_->Show(app->http_.get());
  return app;
}

void RouterApp::Observe() {
  if (options_.metrics == nullptr) options_.metrics = std::make_shared<MetricRegistry>();
  MetricRegistry& registry = *options_.metrics;
  observer_ = std::make_unique<RouterObserver>(registry);
  published_http_ = std::make_unique<PublishedHttp>(registry);
  PublishBuildInfo(registry, "router", options_.name, kVersion, model_.name);
}

void RouterApp::SampleMetrics() {
  observer_->Sample(cluster_->View(), dispatcher_->stats());
  loop_->PostAfter(kSamplePeriodUs, [this] { SampleMetrics(); });
}

absl::Status RouterApp::LoadText(const RouterModel& model) {
  model_.name = options_.served_model_name;
  model_.system_fingerprint = absl::StrFormat("lh-%016x", model.digest.high);
  model_.context_tokens_max = model.context_tokens_max;
  model_.created_s = options_.started_s;
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Make(model.tokenizer);
  if (!tokenizer.ok()) return Prefixed("the model's tokenizer", tokenizer.status());
  model_.tokenizer = *std::move(tokenizer);
  if (model.tokenizer.chat_template.empty()) return absl::OkStatus();

  absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed =
      ChatTemplate::Parse(model.tokenizer.chat_template);
  if (!parsed.ok()) {
    // Completions work all the same; a chat is told why it does not.
    LogWarning("chat_template_unusable", {{"why", parsed.status().message()}});
    model_.render_chat = [why = Prefixed("the model's chat template", parsed.status())](
                             const auto&...) -> absl::StatusOr<std::string> {
      return absl::UnimplementedError(why.message());
    };
    return absl::OkStatus();
  }
  boost::json::object constants;
  constants["bos_token"] = TextOfToken(*model_.tokenizer, model_.tokenizer->bos_token());
  constants["eos_token"] = TextOfToken(*model_.tokenizer, model_.tokenizer->eos_token());
  model_.render_chat = [chat = std::shared_ptr<ChatTemplate>(*std::move(parsed)),
                        constants = std::move(constants), started_s = options_.started_s](
                           const boost::json::array& messages, const boost::json::object& kwargs,
                           bool add_generation_prompt) {
    boost::json::object context = constants;
    for (const auto& [name, value] : kwargs) context[name] = value;
    context["messages"] = messages;
    context["add_generation_prompt"] = add_generation_prompt;
    return chat->Render(context, started_s);
  };
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
  published_http_.reset();
  http_.reset();
}

}  // namespace longhaul
