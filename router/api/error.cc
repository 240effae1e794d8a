#include "router/api/error.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "router/api/json_writer.h"

namespace longhaul {
namespace {

constexpr char kParamPayload[] = "longhaul/param";
constexpr char kCodePayload[] = "longhaul/code";
constexpr char kRetryPayload[] = "longhaul/retry-after-s";

struct Row {
  absl::StatusCode status;
  int http_status;
  const char* type;
  const char* code;
  int64_t retry_after_s;  // unless the status says another
};

constexpr Row kTable[] = {
    {absl::StatusCode::kInvalidArgument, 400, "invalid_request_error", "invalid_value", 0},
    {absl::StatusCode::kOutOfRange, 400, "invalid_request_error", "invalid_value", 0},
    {absl::StatusCode::kUnimplemented, 400, "invalid_request_error", "unsupported_value", 0},
    {absl::StatusCode::kUnauthenticated, 401, "authentication_error", "invalid_api_key", 0},
    {absl::StatusCode::kPermissionDenied, 403, "permission_error", "permission_denied", 0},
    {absl::StatusCode::kNotFound, 404, "invalid_request_error", "not_found", 0},
    {absl::StatusCode::kAlreadyExists, 409, "invalid_request_error", "conflict", 0},
    {absl::StatusCode::kResourceExhausted, 429, "rate_limit_error", "rate_limit_exceeded", 1},
    {absl::StatusCode::kCancelled, 499, "server_error", "cancelled", 0},
    {absl::StatusCode::kUnavailable, 503, "server_error", "service_unavailable", 1},
    {absl::StatusCode::kDeadlineExceeded, 504, "server_error", "deadline_exceeded", 0},
    {absl::StatusCode::kFailedPrecondition, 500, "server_error", "failed_precondition", 0},
    {absl::StatusCode::kAborted, 500, "server_error", "aborted", 0},
    {absl::StatusCode::kDataLoss, 500, "server_error", "data_loss", 0},
    {absl::StatusCode::kInternal, 500, "server_error", "internal_error", 0},
    {absl::StatusCode::kUnknown, 500, "server_error", "internal_error", 0},
};

const Row& RowOf(absl::StatusCode code) {
  const Row* row = std::find_if(std::begin(kTable), std::end(kTable),
                                [&](const Row& candidate) { return candidate.status == code; });
  // A code from a newer peer that this table does not know counts as unknown, the last row.
  return row != std::end(kTable) ? *row : kTable[std::size(kTable) - 1];
}

std::string Payload(const absl::Status& status, const char* name) {
  absl::optional<absl::Cord> payload = status.GetPayload(name);
  return payload.has_value() ? std::string(*payload) : std::string();
}

absl::Status WithPayload(absl::Status status, const char* name, absl::string_view value) {
  LH_CHECK(!status.ok(), "only an error carries facts about an error");
  status.SetPayload(name, absl::Cord(value));
  return status;
}

}  // namespace

ApiError ApiErrorFromStatus(const absl::Status& status) {
  LH_CHECK(!status.ok(), "an OK status is no error");
  const Row& row = RowOf(status.code());
  ApiError error;
  error.http_status = row.http_status;
  error.message = std::string(status.message());
  if (error.message.empty()) error.message = absl::StatusCodeToString(status.code());
  error.type = row.type;
  error.param = Payload(status, kParamPayload);
  error.code = Payload(status, kCodePayload);
  if (error.code.empty()) error.code = row.code;
  if (!absl::SimpleAtoi(Payload(status, kRetryPayload), &error.retry_after_s)) {
    error.retry_after_s = row.retry_after_s;
  }
  return error;
}

std::string ErrorJson(const ApiError& error) {
  JsonWriter out;
  out.BeginObject().Key("error").BeginObject();
  out.Key("message").String(error.message).Key("type").String(error.type);
  out.Key("param");
  error.param.empty() ? out.Null() : out.String(error.param);
  out.Key("code");
  error.code.empty() ? out.Null() : out.String(error.code);
  out.EndObject().EndObject();
  return out.Take();
}

absl::Status WithErrorParam(absl::Status status, absl::string_view param) {
  return WithPayload(std::move(status), kParamPayload, param);
}

absl::Status WithErrorCode(absl::Status status, absl::string_view code) {
  return WithPayload(std::move(status), kCodePayload, code);
}

absl::Status WithRetryAfter(absl::Status status, int64_t seconds) {
  return WithPayload(std::move(status), kRetryPayload, absl::StrCat(seconds));
}

absl::Status InvalidFieldError(absl::string_view param, absl::string_view why) {
  return WithErrorParam(absl::InvalidArgumentError(absl::StrCat("'", param, "' ", why)), param);
}

absl::Status UnsupportedFieldError(absl::string_view param, absl::string_view why) {
  return WithErrorParam(absl::UnimplementedError(absl::StrCat("'", param, "' ", why)), param);
}

absl::Status ContextLengthError(int64_t prompt_tokens, int64_t output_tokens,
                                int64_t context_tokens_max) {
  std::string asked =
      output_tokens == 0
          ? absl::StrCat("the prompt has ", prompt_tokens, " tokens")
          : absl::StrCat("the request needs ", prompt_tokens + output_tokens, " tokens (",
                         prompt_tokens, " in the prompt, ", output_tokens, " for the output)");
  std::string fix =
      output_tokens == 0
          ? absl::StrCat("shorten the prompt by ", prompt_tokens + 1 - context_tokens_max,
                         " tokens or more")
          : absl::StrCat("shorten the prompt or lower max_completion_tokens by ",
                         prompt_tokens + output_tokens - context_tokens_max, " tokens in all");
  absl::Status status = absl::InvalidArgumentError(
      absl::StrCat("This model's maximum context length is ", context_tokens_max, " tokens, but ",
                   asked, "; ", fix, "."));
  return WithErrorCode(std::move(status), "context_length_exceeded");
}

absl::Status ModelNotFoundError(absl::string_view model, absl::string_view served) {
  absl::Status status = absl::NotFoundError(
      absl::StrCat("The model '", model, "' does not exist; this server serves '", served, "'."));
  return WithErrorParam(WithErrorCode(std::move(status), "model_not_found"), "model");
}

absl::Status OverloadedError(absl::string_view why, int64_t retry_after_s) {
  return WithRetryAfter(
      absl::ResourceExhaustedError(absl::StrCat(why, "; retry after ", retry_after_s, " s")),
      retry_after_s);
}

absl::Status NoWorkerError(absl::string_view why, int64_t retry_after_s) {
  return WithRetryAfter(
      absl::UnavailableError(absl::StrCat(why, "; retry after ", retry_after_s, " s")),
      retry_after_s);
}

}  // namespace longhaul
