// longhaul_router: the OpenAI API in front of prefill and decode workers.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/model/model_file.h"
#include "common/process/flags.h"
#include "common/process/ready_file.h"
#include "common/process/stop_signal.h"
#include "router/core/grpc_worker_client.h"
#include "router/core/router_app.h"
#include "router/core/worker_list.h"

ABSL_FLAG(std::string, model, "",
          "GGUF file or Hugging Face folder; the router reads its tokenizer and chat template");
ABSL_FLAG(std::string, http, "127.0.0.1:8000", "host:port of the API; port 0 takes a free one");
ABSL_FLAG(std::string, prefill, "", "prefill workers: name=host:port,...");
ABSL_FLAG(std::string, decode, "", "decode workers: name=host:port,...");
ABSL_FLAG(std::string, name, "router-0", "of this process, in logs and metrics");
ABSL_FLAG(std::string, served_model_name, "", "what clients call the model; empty: its own name");
ABSL_FLAG(std::string, policy, "context-length",
          "round-robin, least-loaded, prefix-affinity or context-length");
ABSL_FLAG(int64_t, long_threshold, 4096,
          "a prompt is long when it costs as much as this many tokens from the start");
ABSL_FLAG(bool, local_prefill, true,
          "let decode workers compute prompts while no prefill worker is ready");
ABSL_FLAG(double, spill_slowdown, 0,
          "let a decode worker compute a prompt that would take so many times as long as by itself "
          "on the prefill workers, where it would be sooner; 0: never");
ABSL_FLAG(double, wait_limit_s, 60, "refuse with 429 when a prompt would wait longer");
ABSL_FLAG(int64_t, requests_max, 4096, "under way at once; more are refused with 429");
ABSL_FLAG(double, request_timeout_s, 0, "of one generation; 0: none");
ABSL_FLAG(std::string, api_keys, "", "file with one API key a line; empty: everybody may ask");
ABSL_FLAG(int32_t, http_threads, 2, "edge threads");
ABSL_FLAG(int64_t, body_bytes_max, 16 << 20, "largest request body");
ABSL_FLAG(double, drain_s, 30, "how long running answers may take after SIGTERM");
ABSL_FLAG(std::string, ready_file, "", "written once the router listens, as one JSON object");

namespace longhaul {
namespace {

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path));
  }
  return text.str();
}

absl::StatusOr<RouterOptions> OptionsFromFlags() {
  RouterOptions options;
  options.name = absl::GetFlag(FLAGS_name);
  options.policy = absl::GetFlag(FLAGS_policy);
  options.policy_options.long_tokens = absl::GetFlag(FLAGS_long_threshold);
  options.policy_options.local_prefill = absl::GetFlag(FLAGS_local_prefill);
  options.policy_options.spill_slowdown = absl::GetFlag(FLAGS_spill_slowdown);
  options.policy_options.wait_limit_us = absl::GetFlag(FLAGS_wait_limit_s) * 1e6;
  options.dispatcher.requests_max = absl::GetFlag(FLAGS_requests_max);
  options.request_timeout_us = static_cast<int64_t>(absl::GetFlag(FLAGS_request_timeout_s) * 1e6);
  LH_ASSIGN_OR_RETURN(const HostPort listen, ParseHostPort("--http", absl::GetFlag(FLAGS_http)));
  options.http.address = listen.host;
  options.http.port = listen.port;
  options.http.port_flag = "--http";
  options.http.threads = absl::GetFlag(FLAGS_http_threads);
  options.http.limits.body_bytes_max = absl::GetFlag(FLAGS_body_bytes_max);
  if (const std::string path = absl::GetFlag(FLAGS_api_keys); !path.empty()) {
    LH_ASSIGN_OR_RETURN(options.api_keys, ReadTextFile(path));
    if (options.api_keys.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("--api_keys: ", path, " is empty"));
    }
  }
  options.started_s = std::chrono::duration_cast<std::chrono::seconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  return options;
}

absl::Status Run() {
  LH_ASSIGN_OR_RETURN(const auto prefill,
                      ParseWorkerList("--prefill", absl::GetFlag(FLAGS_prefill)));
  LH_ASSIGN_OR_RETURN(const auto decode, ParseWorkerList("--decode", absl::GetFlag(FLAGS_decode)));
  if (decode.empty()) {
    return absl::InvalidArgumentError("--decode is missing: name at least one worker");
  }
  LH_ASSIGN_OR_RETURN(RouterOptions options, OptionsFromFlags());

  LH_ASSIGN_OR_RETURN(const ModelFile file, LoadModelFile(absl::GetFlag(FLAGS_model)));
  options.served_model_name = absl::GetFlag(FLAGS_served_model_name);
  if (options.served_model_name.empty()) options.served_model_name = file.config.name;
  if (options.served_model_name.empty()) {
    options.served_model_name = std::filesystem::path(absl::GetFlag(FLAGS_model)).stem().string();
  }
  const std::string name = options.name;
  const int64_t drain_us = static_cast<int64_t>(absl::GetFlag(FLAGS_drain_s) * 1e6);
  LH_ASSIGN_OR_RETURN(
      const auto app,
      RouterApp::Start(
          std::move(options), {file.tokenizer, file.config.context_tokens_max, file.digest},
          [&](std::shared_ptr<Loop> loop) {
            ClusterMembers members;
            for (const NamedAddress& worker : decode) {
              members.decode.push_back(
                  {worker.name, worker.address, MakeGrpcWorkerClient(loop, worker.address)});
            }
            for (const NamedAddress& worker : prefill) {
              members.prefill.push_back(
                  {worker.name, worker.address, MakeGrpcPrefillStatusClient(loop, worker.address)});
            }
            return members;
          }));
  LH_RETURN_IF_ERROR(
      WriteReadyFile(absl::GetFlag(FLAGS_ready_file), {"router", name, "", app->http_address()}));
  LogInfo("listening", {{"http", app->http_address()}});
  WaitForStopSignal();
  LogInfo("stopping");
  app->Shutdown(drain_us);
  return absl::OkStatus();
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  longhaul::BlockStopSignals();
  longhaul::ParseCommandLine(argc, argv, "The OpenAI API in front of prefill and decode workers.");
  longhaul::InitLog(absl::GetFlag(FLAGS_name), longhaul::LogLevel::kInfo);
  const absl::Status status = longhaul::Run();
  if (status.ok()) return 0;
  std::fprintf(stderr, "longhaul_router: %s\n", std::string(status.message()).c_str());
  return 1;
}
