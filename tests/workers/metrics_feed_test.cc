// What the workers publish: numbers appear while they work, and at rest no block is live.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_split.h"
#include "decode_worker/decode_metrics_feed.h"
#include "prefill_worker/prefill_metrics_feed.h"
#include "tests/workers/stub_cluster.h"

namespace longhaul {
namespace {

DecodeWorkerOptions OptionsWithTransport() {
  DecodeWorkerOptions options = StubDecodeOptions();
  options.transport = "in-process";
  return options;
}

struct MeasuredCluster {
  WorkerMetricsFeedOptions feed_options{"in-process", StubLayout().block_bytes()};
  MetricRegistry registry;
  StubCluster cluster{256, 256, OptionsWithTransport()};
  PrefillMetricsFeed prefill{&cluster.loop, &cluster.prefill,
                             WorkerMetrics(registry, "prefill", "prefill-0"), feed_options};
  DecodeMetricsFeed decode{&cluster.loop, &cluster.decode,
                           WorkerMetrics(registry, "decode", "decode-0"), feed_options};

  // The sample of that name and role with the further labels (as in `state="live"`); -1: none.
  double Value(const std::string& name, const std::string& role, const std::string& labels = "") {
    for (const absl::string_view view : absl::StrSplit(registry.Text(), '\n')) {
      const std::string line(view);
      if (line.rfind("longhaul_worker_" + name + "{", 0) == 0 &&
          line.find("role=\"" + role + "\"") != std::string::npos &&
          line.find(labels) != std::string::npos) {
        return std::stod(line.substr(line.rfind(' ')));
      }
    }
    return -1;
  }
  double Blocks(const std::string& role, const std::string& state) {
    return Value("kv_blocks", role, "state=\"" + state + "\"");
  }
  void ExpectAllBlocksBack() {
    cluster.loop.RunFor(WorkerMetricsFeed::kPeriodUs);
    for (const char* role : {"prefill", "decode"}) {
      EXPECT_EQ(Blocks(role, "live"), 0) << role;
      EXPECT_EQ(Blocks(role, "free") + Blocks(role, "cached"), 256) << role;
    }
  }
};

TEST(MetricsFeedTest, AHandOffIsCountedAtBothEnds) {
  MeasuredCluster measured;
  EXPECT_EQ(measured.Blocks("decode", "free"), 256);
  EXPECT_EQ(measured.Value("kv_block_bytes", "prefill"), StubLayout().block_bytes());
  const auto reply = Ask(measured.cluster.decode, StubRequest(StubPrompt(100, 1), 6, true));
  measured.cluster.loop.RunFor(60'000'000);
  ASSERT_TRUE(reply->done && reply->status.ok()) << reply->status;
  EXPECT_EQ(reply->timing.transport(), "in-process");

  const auto kv_bytes = static_cast<double>(reply->timing.kv_bytes());
  EXPECT_GT(kv_bytes, 0);
  EXPECT_EQ(measured.Value("transfer_bytes_total", "prefill", "direction=\"sent\""), kv_bytes);
  EXPECT_EQ(measured.Value("transfer_bytes_total", "decode", "direction=\"received\""), kv_bytes);
  for (const char* role : {"prefill", "decode"}) {
    EXPECT_EQ(measured.Value("transfers_total", role, "outcome=\"ok\""), 1) << role;
    EXPECT_EQ(measured.Value("transfers_total", role, "outcome=\"failed\""), 0) << role;
    EXPECT_EQ(measured.Value("requests_total", role, "outcome=\"finished\""), 1) << role;
    EXPECT_GT(measured.Value("steps_total", role), 0) << role;
    EXPECT_EQ(measured.Value("step_seconds_count", role), measured.Value("steps_total", role));
  }
  EXPECT_EQ(measured.Value("tokens_total", "prefill", "kind=\"prompt\""), 99);
  EXPECT_EQ(measured.Value("tokens_total", "decode", "kind=\"output\""), 6);
  EXPECT_EQ(measured.Value("transfer_seconds_count", "decode"), 1);
  EXPECT_EQ(measured.Value("first_token_part_seconds_count", "decode", "part=\"transfer\""), 1);
  measured.ExpectAllBlocksBack();
}

TEST(MetricsFeedTest, BlocksAreLiveWhileAPromptIsUnderWayAndFreeAfterItsCancel) {
  MeasuredCluster measured;
  auto reply = Ask(measured.cluster.decode, StubRequest(StubPrompt(900, 2), 6, true));
  double live = 0;
  for (int i = 0; i < 1000 && live <= 0; ++i) {
    measured.cluster.loop.RunFor(WorkerMetricsFeed::kPeriodUs / 10);
    live = measured.Blocks("decode", "live");
    ASSERT_FALSE(reply->done) << "no sample came while the prompt was under way";
  }
  EXPECT_GT(live, 0);
  EXPECT_GT(measured.Blocks("prefill", "live"), 0);
  reply->call.reset();
  measured.cluster.loop.RunFor(60'000'000);
  EXPECT_EQ(measured.Value("requests_total", "decode", "outcome=\"cancelled\""), 1);
  EXPECT_EQ(measured.Value("transfers_total", "decode", "outcome=\"cancelled\""), 1);
  EXPECT_EQ(measured.Value("transfers_total", "prefill", "outcome=\"cancelled\""), 1);
  EXPECT_EQ(measured.Value("cancel_to_free_seconds_count", "decode"), 1);
  EXPECT_EQ(measured.Value("cancel_to_free_seconds_count", "prefill"), 1);
  measured.ExpectAllBlocksBack();
}

TEST(MetricsFeedTest, PromptsComputedByTheDecodeWorkerSayWhy) {
  MeasuredCluster measured;
  GenerateRequest request = StubRequest(StubPrompt(50, 1), 5, false);
  const auto by_plan = Ask(measured.cluster.decode, request);
  measured.cluster.loop.RunFor(60'000'000);
  request = StubRequest(StubPrompt(50, 7), 5, false);
  request.add_prefill_addresses("nobody");
  request.add_prefill_names("nobody");
  const auto for_want = Ask(measured.cluster.decode, request);
  measured.cluster.loop.RunFor(60'000'000);
  ASSERT_TRUE(by_plan->done && for_want->done);
  EXPECT_EQ(by_plan->timing.transport(), "");
  EXPECT_EQ(measured.Value("local_prefills_total", "decode", "reason=\"short\""), 1);
  EXPECT_EQ(measured.Value("local_prefills_total", "decode", "reason=\"fallback\""), 1);
  EXPECT_EQ(measured.Value("tokens_total", "decode", "kind=\"prompt\""), 98);
  EXPECT_GT(measured.Value("transfers_total", "decode", "outcome=\"failed\""), 0);
  measured.ExpectAllBlocksBack();
}

}  // namespace
}  // namespace longhaul
