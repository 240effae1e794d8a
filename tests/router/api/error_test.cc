#include "router/api/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace longhaul {
namespace {

using ::testing::HasSubstr;

TEST(ErrorTest, TableGivesEachStatusItsHttpStatus) {
  auto http = [](absl::Status status) { return ApiErrorFromStatus(status).http_status; };
  EXPECT_EQ(http(absl::InvalidArgumentError("")), 400);
  EXPECT_EQ(http(absl::UnimplementedError("")), 400);
  EXPECT_EQ(http(absl::UnauthenticatedError("")), 401);
  EXPECT_EQ(http(absl::NotFoundError("")), 404);
  EXPECT_EQ(http(absl::ResourceExhaustedError("")), 429);
  EXPECT_EQ(http(absl::CancelledError("")), 499);
  EXPECT_EQ(http(absl::InternalError("")), 500);
  EXPECT_EQ(http(absl::DataLossError("")), 500);
  EXPECT_EQ(http(absl::UnavailableError("")), 503);
  EXPECT_EQ(http(absl::DeadlineExceededError("")), 504);
  EXPECT_EQ(http(absl::Status(static_cast<absl::StatusCode>(77), "new")), 500);
}

TEST(ErrorTest, BodyHasNullForWhatIsNotSet) {
  const ApiError error = ApiErrorFromStatus(absl::UnauthenticatedError("no \"key\""));
  EXPECT_EQ(ErrorJson(error),
            R"({"error":{"message":"no \"key\"","type":"authentication_error","param":null,)"
            R"("code":"invalid_api_key"}})");
}

TEST(ErrorTest, ContextLengthNamesBothNumbersAndTheFix) {
  const ApiError prompt = ApiErrorFromStatus(ContextLengthError(9412, 0, 8192));
  EXPECT_EQ(prompt.http_status, 400);
  EXPECT_EQ(prompt.code, "context_length_exceeded");
  EXPECT_THAT(prompt.message, HasSubstr("8192"));
  EXPECT_THAT(prompt.message, HasSubstr("9412"));
  EXPECT_THAT(prompt.message, HasSubstr("by 1221 tokens"));
  const ApiError both = ApiErrorFromStatus(ContextLengthError(8000, 200, 8192));
  EXPECT_THAT(both.message, HasSubstr("8200 tokens (8000 in the prompt, 200 for the output)"));
  EXPECT_THAT(both.message, HasSubstr("by 8 tokens"));
}

TEST(ErrorTest, RefusalsSayWhenToComeBack) {
  const ApiError full = ApiErrorFromStatus(OverloadedError("queue is full (100 of 100)", 7));
  EXPECT_EQ(full.http_status, 429);
  EXPECT_EQ(full.retry_after_s, 7);
  EXPECT_EQ(full.type, "rate_limit_error");
  const ApiError none = ApiErrorFromStatus(NoWorkerError("0 of 2 decode workers are ready", 3));
  EXPECT_EQ(none.http_status, 503);
  EXPECT_EQ(none.retry_after_s, 3);
  EXPECT_GT(ApiErrorFromStatus(absl::UnavailableError("x")).retry_after_s, 0);
}

TEST(ErrorTest, UnknownModelIs404WithItsName) {
  const ApiError error = ApiErrorFromStatus(ModelNotFoundError("gpt-9", "smollm2"));
  EXPECT_EQ(error.http_status, 404);
  EXPECT_EQ(error.code, "model_not_found");
  EXPECT_EQ(error.param, "model");
  EXPECT_THAT(error.message, HasSubstr("smollm2"));
}

}  // namespace
}  // namespace longhaul
