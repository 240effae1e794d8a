#include "decode_worker/request_check.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace longhaul {
namespace {

absl::Status CheckToken(absl::string_view field, int64_t token, int64_t vocab) {
  if (token >= 0 && token < vocab) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " has token ", token, ", the vocabulary is [0, ", vocab, ")"));
}

absl::Status CheckTokens(absl::string_view field, absl::Span<const int32_t> tokens, int64_t vocab) {
  const auto wrong = std::find_if(tokens.begin(), tokens.end(),
                                  [&](int32_t token) { return token < 0 || token >= vocab; });
  return wrong == tokens.end() ? absl::OkStatus() : CheckToken(field, *wrong, vocab);
}

absl::Status CheckRange(absl::string_view field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", valid is [", low, ", ", high, "]"));
}

constexpr double kLogprobsMax = 1024;

}  // namespace

absl::StatusOr<DecodeRequest> CheckGenerateRequest(const GenerateRequest& message, int64_t vocab,
                                                   absl::Span<const int32_t> eos_tokens) {
  LH_RETURN_IF_ERROR(CheckTokens("tokens", message.tokens(), vocab));
  LH_RETURN_IF_ERROR(CheckTokens("stop_tokens", message.stop_tokens(), vocab));
  if (message.prefill_addresses_size() != message.prefill_names_size()) {
    return absl::InvalidArgumentError(absl::StrCat(message.prefill_addresses_size(),
                                                   " prefill addresses with ",
                                                   message.prefill_names_size(), " names"));
  }
  const Sampling& sampling = message.sampling();
  LH_RETURN_IF_ERROR(CheckRange("temperature", sampling.temperature(), 0, 100));
  LH_RETURN_IF_ERROR(CheckRange("top_p", sampling.top_p(), 0, 1));
  LH_RETURN_IF_ERROR(CheckRange("min_p", sampling.min_p(), 0, 1));
  LH_RETURN_IF_ERROR(CheckRange("repetition_penalty", sampling.repetition_penalty(), 1e-6, 1e6));
  LH_RETURN_IF_ERROR(CheckRange("presence_penalty", sampling.presence_penalty(), -100, 100));
  LH_RETURN_IF_ERROR(CheckRange("frequency_penalty", sampling.frequency_penalty(), -100, 100));
  LH_RETURN_IF_ERROR(CheckRange("top_logprobs", sampling.top_logprobs(), -1, kLogprobsMax));

  auto params = std::make_shared<SamplingParams>();
  params->temperature = sampling.temperature();
  params->top_p = sampling.top_p();
  params->top_k = sampling.top_k();
  params->min_p = sampling.min_p();
  params->repetition_penalty = sampling.repetition_penalty();
  params->presence_penalty = sampling.presence_penalty();
  params->frequency_penalty = sampling.frequency_penalty();
  params->seed = sampling.seed();
  params->top_logprobs = sampling.top_logprobs();
  for (const Sampling::Bias& bias : sampling.logit_bias()) {
    LH_RETURN_IF_ERROR(CheckToken("logit_bias", bias.token(), vocab));
    if (std::isnan(bias.bias())) {
      return absl::InvalidArgumentError(
          absl::StrCat("logit_bias of token ", bias.token(), " is not a number"));
    }
    params->logit_bias.emplace_back(bias.token(), bias.bias());
  }

  DecodeRequest request;
  request.tokens.assign(message.tokens().begin(), message.tokens().end());
  request.prompt_tokens = message.prompt_tokens();
  request.output_tokens_max = message.output_tokens_max();
  request.output_tokens_min = message.output_tokens_min();
  request.stop_tokens.assign(message.stop_tokens().begin(), message.stop_tokens().end());
  if (!message.ignore_eos()) {
    request.stop_tokens.insert(request.stop_tokens.end(), eos_tokens.begin(), eos_tokens.end());
  }
  request.sampling = std::move(params);
  request.cache_salt = message.cache_salt();
  return request;
}

}  // namespace longhaul
