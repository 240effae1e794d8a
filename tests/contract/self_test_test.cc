#include "kv_transfer/self_test.h"

#include <gtest/gtest.h>

#include <random>

#include "common/runtime/thread_loop.h"
#include "common/runtime/virtual_loop.h"
#include "kv_transfer/in_process_transport.h"
#include "kv_transfer/simulated_network.h"

namespace longhaul {
namespace {

TEST(SelfTestTest, MeasuresFromAnotherThread) {
  ThreadLoop loop({.name = "transfer"});
  InProcessTransport transport(&loop, MakeInProcessNetwork());
  const auto speed =
      RunSelfTestAndWait(&loop, &transport, {.message_bytes = 100'000, .messages = 5});
  ASSERT_TRUE(speed.ok()) << speed.status();
  EXPECT_EQ(speed->path, "memory");
  EXPECT_GT(speed->bytes_per_s, 0);
}

class SimulatedSelfTest : public testing::Test {
 protected:
  absl::StatusOr<LinkSpeed> Measure(SimulatedNetworkOptions options) {
    VirtualLoop loop;
    SimulatedNetwork network(&loop, options, std::mt19937_64(1));
    auto transport = network.MakeTransport("self");
    absl::StatusOr<LinkSpeed> outcome = absl::UnknownError("no outcome");
    int times = 0;
    RunSelfTest(&loop, transport.get(), {}, [&](absl::StatusOr<LinkSpeed> measured) {
      outcome = std::move(measured);
      ++times;
    });
    loop.RunUntilIdle();
    EXPECT_EQ(times, 1);
    return outcome;
  }
};

TEST_F(SimulatedSelfTest, TellsTheSpeedOfTheWire) {
  const auto speed = Measure({.bytes_per_us = 2000});
  ASSERT_TRUE(speed.ok()) << speed.status();
  EXPECT_NEAR(speed->bytes_per_s, 2e9, 0.05e9);
}

TEST_F(SimulatedSelfTest, AWireThatSwallowsEverythingIsADeadline) {
  const auto speed = Measure({.loss = 1, .loss_is_told = false});
  EXPECT_TRUE(absl::IsDeadlineExceeded(speed.status())) << speed.status();
}

TEST_F(SimulatedSelfTest, ABrokenWireIsAnError) {
  const auto speed = Measure({.loss = 1});
  EXPECT_TRUE(absl::IsUnavailable(speed.status())) << speed.status();
}

}  // namespace
}  // namespace longhaul
