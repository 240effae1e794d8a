// How an error reaches a client: one table from absl::Status to HTTP status and OpenAI error
// object. Anything below the router's edge returns an absl::Status; the edge calls
// ApiErrorFromStatus once. Facts that a status code cannot hold (the field at fault, a finer code,
// when to come back) ride as payloads, set by the functions below. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace longhaul {

struct ApiError {
  int http_status = 500;
  std::string message;
  std::string type;           // invalid_request_error, authentication_error, rate_limit_error, ...
  std::string param;          // the field at fault; empty: null in JSON
  std::string code;           // empty: null in JSON
  int64_t retry_after_s = 0;  // > 0: send it as the Retry-After header
};

// The table. `status` must not be OK.
ApiError ApiErrorFromStatus(const absl::Status& status);

// {"error":{"message","type","param","code"}}
std::string ErrorJson(const ApiError& error);

// Attach facts to a status that is not OK.
absl::Status WithErrorParam(absl::Status status, absl::string_view param);
absl::Status WithErrorCode(absl::Status status, absl::string_view code);
absl::Status WithRetryAfter(absl::Status status, int64_t seconds);

// A field of the request is wrong; `why` holds the numbers.
absl::Status InvalidFieldError(absl::string_view param, absl::string_view why);
// A field that this API knows and this server cannot honour.
absl::Status UnsupportedFieldError(absl::string_view param, absl::string_view why);
// 400 context_length_exceeded: names what was asked and what the model allows. `output_tokens` 0:
// the prompt alone is too long.
absl::Status ContextLengthError(int64_t prompt_tokens, int64_t output_tokens,
                                int64_t context_tokens_max);
// 404 model_not_found.
absl::Status ModelNotFoundError(absl::string_view model, absl::string_view served);
// 429 and 503, both with Retry-After.
absl::Status OverloadedError(absl::string_view why, int64_t retry_after_s);
absl::Status NoWorkerError(absl::string_view why, int64_t retry_after_s);

}  // namespace longhaul
