#include "kv_transfer/ucx/ucx_address.h"

#include <gtest/gtest.h>

#include <random>

namespace longhaul {
namespace {

UcxAddress Sample() {
  UcxAddress address = ThisProcess();
  address.link_id = 42;
  address.segment_bytes_max = 1 << 19;
  address.worker = std::string("worker\0bytes", 12);
  return address;
}

TEST(UcxAddressTest, SurvivesTheWayThere) {
  const UcxAddress sent = Sample();
  const auto read = DecodeUcxAddress(EncodeUcxAddress(sent));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->link_id, sent.link_id);
  EXPECT_EQ(read->host_id, sent.host_id);
  EXPECT_EQ(read->pid, sent.pid);
  EXPECT_EQ(read->started_ticks, sent.started_ticks);
  EXPECT_EQ(read->segment_bytes_max, sent.segment_bytes_max);
  EXPECT_EQ(read->worker, sent.worker);
}

TEST(UcxAddressTest, KnowsALivingProcessFromOneWithItsPid) {
  UcxAddress address = Sample();
  EXPECT_TRUE(StillRuns(address));
  ++address.started_ticks;
  EXPECT_FALSE(StillRuns(address));
}

TEST(UcxAddressTest, RefusesEveryDamage) {
  const std::string good = EncodeUcxAddress(Sample());
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int bit : {0, 3, 7}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      EXPECT_TRUE(absl::IsInvalidArgument(DecodeUcxAddress(bad).status())) << i;
    }
    EXPECT_TRUE(absl::IsInvalidArgument(DecodeUcxAddress(good.substr(0, i)).status())) << i;
    EXPECT_TRUE(absl::IsInvalidArgument(DecodeUcxAddress(good.substr(i + 1)).status())) << i;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(DecodeUcxAddress(good + "x").status()));
}

TEST(UcxAddressTest, RefusesNoise) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes(random() % 200, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    if (round % 2 == 0) bytes.replace(0, 8, "LHUCX002");
    EXPECT_TRUE(absl::IsInvalidArgument(DecodeUcxAddress(bytes).status()));
  }
}

}  // namespace
}  // namespace longhaul
