#include "common/metrics/metric_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/metrics/http_metrics.h"
#include "common/metrics/worker_metrics.h"

namespace longhaul {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricRegistryTest, CountsAndRenders) {
  MetricRegistry registry;
  const auto requests = registry.AddCounters("longhaul_a_total", "What a is", {"endpoint"});
  requests.With({"chat"}).Add();
  requests.With({"chat"}).Add(2);
  requests.With({"models"}).Add();
  Gauge gauge = registry.AddGauge("longhaul_b", "What b is", {{"role", "decode"}});
  gauge.Set(7);
  gauge.Add(-2);
  Histogram histogram = registry.AddHistogram("longhaul_c_seconds", "What c is", {0.1, 1});
  histogram.Observe(0.05);
  histogram.Observe(0.5);
  histogram.Observe(5);
  const std::string text = registry.Text();
  EXPECT_THAT(text,
              HasSubstr("# HELP longhaul_a_total What a is\n# TYPE longhaul_a_total counter"));
  EXPECT_THAT(text, HasSubstr("longhaul_a_total{endpoint=\"chat\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("longhaul_a_total{endpoint=\"models\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("longhaul_b{role=\"decode\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("longhaul_c_seconds_bucket{le=\"0.1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("longhaul_c_seconds_bucket{le=\"1\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("longhaul_c_seconds_bucket{le=\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("longhaul_c_seconds_count 3\n"));
}

TEST(MetricRegistryTest, RaiseToNeverGoesBack) {
  MetricRegistry registry;
  Counter counter = registry.AddCounter("longhaul_a_total", "a");
  counter.RaiseTo(5);
  counter.RaiseTo(3);
  EXPECT_EQ(counter.value(), 5);
  counter.RaiseTo(9);
  EXPECT_EQ(counter.value(), 9);
}

TEST(MetricRegistryTest, LabelValuesOfTheWorldAreBounded) {
  MetricRegistry registry;
  const auto errors = registry.AddCounters("longhaul_a_total", "a", {"kind"}, {{"role", "router"}});
  constexpr int kMore = 50;
  for (int i = 0; i < MetricFamily<Counter>::kSeriesMax + kMore; ++i) {
    errors.With({absl::StrCat("made-up-", i)}).Add();
  }
  EXPECT_EQ(errors.With({"made-up-0"}).value(), 1);  // known ones keep their own
  EXPECT_EQ(errors.With({"other"}).value(), kMore);
  EXPECT_THAT(registry.Text(), HasSubstr("longhaul_a_total{kind=\"other\",role=\"router\"} 50"));
}

TEST(MetricRegistryTest, LabelValuesAreEscaped) {
  MetricRegistry registry;
  registry.AddCounters("longhaul_a_total", "a", {"kind"}).With({"a\"b\\c\nd"}).Add();
  EXPECT_THAT(registry.Text(), HasSubstr("{kind=\"a\\\"b\\\\c\\nd\"} 1"));
}

TEST(MetricRegistryTest, PulledValuesAreAskedForEachTime) {
  MetricRegistry registry;
  int64_t open = 3;
  PublishHttp(registry, [&] {
    HttpCounts counts;
    counts.connections = open;
    counts.slow_readers_total = 2;
    return counts;
  });
  EXPECT_THAT(registry.Text(), HasSubstr("longhaul_http_connections 3\n"));
  open = 4;
  EXPECT_THAT(registry.Text(), HasSubstr("longhaul_http_connections 4\n"));
  EXPECT_THAT(registry.Text(), HasSubstr("# TYPE longhaul_http_slow_readers_total counter\n"
                                         "longhaul_http_slow_readers_total 2\n"));
}

TEST(MetricRegistryTest, ThreadsMayCountAndRenderAtOnce) {
  MetricRegistry registry;
  const auto family = registry.AddCounters("longhaul_a_total", "a", {"kind"});
  Histogram histogram = registry.AddHistogram("longhaul_b_seconds", "b", WorkBoundsS());
  std::vector<std::future<void>> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.push_back(std::async(std::launch::async, [&, thread] {
      for (int i = 0; i < 500; ++i) {
        family.With({absl::StrCat(i % 7)}).Add();
        Histogram(histogram).Observe(0.001 * i);
        if (i % 100 == thread) registry.Text();
      }
    }));
  }
  for (auto& thread : threads) thread.get();
  double total = 0;
  for (int kind = 0; kind < 7; ++kind) total += family.With({absl::StrCat(kind)}).value();
  EXPECT_EQ(total, 2000);
  EXPECT_THAT(registry.Text(), HasSubstr("longhaul_b_seconds_count 2000"));
}

TEST(MetricRegistryDeathTest, NamesFollowTheHouse) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  MetricRegistry registry;
  EXPECT_DEATH(registry.AddCounter("longhaul_a", "a"), "longhaul_a");
  EXPECT_DEATH(registry.AddGauge("longhaul_a_total", "a"), "longhaul_a_total");
  EXPECT_DEATH(registry.AddGauge("vllm_a", "a"), "vllm_a");
}

TEST(WorkerMetricsTest, WorkersShareARegistry) {
  MetricRegistry registry;
  WorkerMetrics prefill(registry, "prefill", "prefill-0");
  WorkerMetrics decode(registry, "decode", "decode-0");
  prefill.steps_total.Add(2);
  decode.steps_total.Add(3);
  decode.kv_blocks.With({"free"}).Set(100);
  PublishBuildInfo(registry, "decode", "decode-0", "0.1.0", "smol");
  const std::string text = registry.Text();
  EXPECT_THAT(text,
              HasSubstr("longhaul_worker_steps_total{role=\"prefill\",worker=\"prefill-0\"} 2"));
  EXPECT_THAT(text,
              HasSubstr("longhaul_worker_steps_total{role=\"decode\",worker=\"decode-0\"} 3"));
  EXPECT_THAT(text, HasSubstr("longhaul_worker_kv_blocks{role=\"decode\",state=\"free\",worker="
                              "\"decode-0\"} 100"));
  EXPECT_THAT(text,
              HasSubstr("longhaul_build_info{model=\"smol\",name=\"decode-0\",role=\"decode\","
                        "version=\"0.1.0\"} 1"));
}

// The text format wants one block a name; a second would make Prometheus drop the scrape.
TEST(WorkerMetricsTest, EveryNameComesOnce) {
  MetricRegistry registry;
  WorkerMetrics prefill(registry, "prefill", "prefill-0");
  WorkerMetrics decode(registry, "decode", "decode-0");
  PublishHttp(registry, [] { return HttpCounts(); });
  std::set<std::string> names;
  const std::string text = registry.Text();
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, "# TYPE ")) continue;
    EXPECT_TRUE(names.insert(std::string(line)).second) << line;
  }
  EXPECT_GT(names.size(), 10u);
  EXPECT_THAT(text, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace longhaul
