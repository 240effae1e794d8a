#include "router/metrics/router_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace longhaul {
namespace {

using ::testing::HasSubstr;

TEST(RouterMetricsTest, SplitsTheTimeToFirstToken) {
  MetricRegistry registry;
  RouterMetrics metrics(registry);
  metrics.ObserveTtft("long", {.total_us = 100'000,
                               .queue_us = 10'000,
                               .prefill_us = 70'000,
                               .transfer_us = 5'000,
                               .first_decode_us = 15'000});
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("longhaul_ttft_seconds_sum{length_class=\"long\"} 0.1"));
  EXPECT_THAT(text,
              HasSubstr("longhaul_ttft_part_seconds_sum{length_class=\"long\",part=\"prefill\"} "
                        "0.07"));
  for (const char* part : {"queue", "transfer", "first_decode"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("longhaul_ttft_part_seconds_count{length_class="
                                             "\"long\",part=\"",
                                             part, "\"} 1")));
  }
}

}  // namespace
}  // namespace longhaul
