// longhaul_load_sim: what becomes of requests under the production router and workers in simulated
// time. Requests on stdin, a line each: due_us, prompt tokens, output tokens, names of the prompt's
// blocks of --name_tokens tokens (equal names in front: an equal prefix). Answers on stdout, in the
// same order: first_us, last_us, tokens, 1 when whole, gRPC status code.
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/process/flags.h"
#include "tools/load_sim/load_world.h"

ABSL_FLAG(int, prefill, 1, "prefill workers");
ABSL_FLAG(int, decode, 1, "decode workers");
// Llama-3-8B in bf16 on one H200, fitted to docs/PERFORMANCE.md: prompts of 512 to 128K tokens,
// batches of 1 to 128.
ABSL_FLAG(std::vector<std::string>, cost,
          (std::vector<std::string>{"1000", "21.3", "0.00084", "4000", "15", "0.0303"}),
          "the cost model's coefficients of every device, in us");
ABSL_FLAG(double, step_target_ms, 20, "the decode workers' flag");
ABSL_FLAG(int64_t, kv_tokens, 900'000, "KV of each worker");
ABSL_FLAG(std::string, policy, "context-length", "the router's flag");
ABSL_FLAG(int64_t, long_threshold, 4096, "the router's flag");
ABSL_FLAG(double, spill_slowdown, 0, "the router's flag");
ABSL_FLAG(double, wait_limit_s, 60, "the router's flag");
ABSL_FLAG(int64_t, name_tokens, 512, "tokens of a named block");
ABSL_FLAG(double, drain_s, 15, "after the last request was due");

namespace longhaul {
namespace {

constexpr int32_t kTokens = 1'000'003;  // a prime

absl::StatusOr<std::vector<LoadRequest>> ReadRequests() {
  std::vector<LoadRequest> requests;
  const int64_t name_tokens = absl::GetFlag(FLAGS_name_tokens);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    LoadRequest request;
    int64_t prompt_tokens = 0;
    words >> request.due_us >> prompt_tokens >> request.output_tokens;
    for (int64_t name = 0; words >> name;) {
      for (int64_t i = 0; i < name_tokens; ++i) {
        if (static_cast<int64_t>(request.prompt.size()) == prompt_tokens) break;
        request.prompt.push_back(static_cast<int32_t>(1 + (name * name_tokens + i) % kTokens));
      }
    }
    if (prompt_tokens < 1 || static_cast<int64_t>(request.prompt.size()) != prompt_tokens) {
      return absl::InvalidArgumentError(absl::StrCat("line ", requests.size() + 1,
                                                     ": its blocks have ", request.prompt.size(),
                                                     " tokens of ", prompt_tokens));
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

absl::Status Main() {
  InitLog("load_sim", LogLevel::kError);
  LoadOptions options;
  options.prefill_workers = absl::GetFlag(FLAGS_prefill);
  options.decode_workers = absl::GetFlag(FLAGS_decode);
  std::vector<double> cost;
  for (const std::string& word : absl::GetFlag(FLAGS_cost)) {
    if (!absl::SimpleAtod(word, &cost.emplace_back())) {
      return absl::InvalidArgumentError(absl::StrCat("--cost: \"", word, "\" is no number"));
    }
  }
  if (cost.size() != 6) return absl::InvalidArgumentError("--cost: six numbers are needed");
  options.cost = CostModel::FromCoefficients(cost);
  options.kv_tokens = absl::GetFlag(FLAGS_kv_tokens);
  options.step_target_us = absl::GetFlag(FLAGS_step_target_ms) * 1000;
  options.policy = absl::GetFlag(FLAGS_policy);
  options.policy_options.long_tokens = absl::GetFlag(FLAGS_long_threshold);
  options.policy_options.spill_slowdown = absl::GetFlag(FLAGS_spill_slowdown);
  options.policy_options.wait_limit_us = absl::GetFlag(FLAGS_wait_limit_s) * 1e6;
  LH_RETURN_IF_ERROR(MakePolicy(options.policy, {}).status());
  LH_ASSIGN_OR_RETURN(const std::vector<LoadRequest> requests, ReadRequests());
  const auto drain_us = static_cast<int64_t>(absl::GetFlag(FLAGS_drain_s) * 1e6);
  for (const LoadAnswer& answer : RunLoad(options, requests, drain_us)) {
    std::printf("%ld %ld %ld %d %d\n", answer.first_us, answer.last_us, answer.tokens,
                answer.whole ? 1 : 0, static_cast<int>(answer.error.code()));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  longhaul::ParseCommandLine(argc, argv,
                             "The production router and workers under load, in simulated time.");
  const absl::Status status = longhaul::Main();
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
