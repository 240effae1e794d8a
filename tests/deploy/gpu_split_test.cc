#include "deploy/standalone/gpu_split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace longhaul {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

BackendChoice Choice(std::vector<int> devices, int tensor_parallel = 1) {
  BackendChoice choice;
  choice.devices = std::move(devices);
  choice.tensor_parallel = tensor_parallel;
  choice.cuda.memory_share = 0.8;
  return choice;
}

TEST(GpuSplitTest, OneGpuIsSharedByHalves) {
  for (const std::vector<int>& decode_devices : {std::vector<int>(), std::vector<int>{3}}) {
    const auto split = SplitGpus(Choice({3}), Choice({3}), decode_devices);
    ASSERT_TRUE(split.ok()) << split.status();
    EXPECT_THAT(split->prefill.devices, ElementsAre(3));
    EXPECT_THAT(split->decode.devices, ElementsAre(3));
    EXPECT_DOUBLE_EQ(split->prefill.cuda.memory_share, 0.4);
    EXPECT_DOUBLE_EQ(split->decode.cuda.memory_share, 0.4);
  }
}

TEST(GpuSplitTest, AGpuOfItsOwnIsAWorkersWhole) {
  const auto split = SplitGpus(Choice({0}), Choice({0}), {1});
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_THAT(split->prefill.devices, ElementsAre(0));
  EXPECT_THAT(split->decode.devices, ElementsAre(1));
  EXPECT_DOUBLE_EQ(split->prefill.cuda.memory_share, 0.8);
  EXPECT_DOUBLE_EQ(split->decode.cuda.memory_share, 0.8);
}

TEST(GpuSplitTest, RanksTakeTheGpusThatFollow) {
  const auto apart = SplitGpus(Choice({0}, 2), Choice({0}, 2), {2});
  ASSERT_TRUE(apart.ok()) << apart.status();
  EXPECT_THAT(apart->prefill.devices, ElementsAre(0, 1));
  EXPECT_THAT(apart->decode.devices, ElementsAre(2, 3));
  EXPECT_DOUBLE_EQ(apart->decode.cuda.memory_share, 0.8);
  const auto meeting = SplitGpus(Choice({0}, 2), Choice({0}, 2), {1});
  ASSERT_TRUE(meeting.ok()) << meeting.status();
  EXPECT_THAT(meeting->decode.devices, ElementsAre(1, 2));
  EXPECT_DOUBLE_EQ(meeting->prefill.cuda.memory_share, 0.4);
}

TEST(GpuSplitTest, OnlyWhoNamesADecodeGpuInsistsOnCuda) {
  EXPECT_EQ(SplitGpus(Choice({0}), Choice({0}), {})->decode.backend, "auto");
  const auto split = SplitGpus(Choice({0}), Choice({0}), {1});
  EXPECT_EQ(split->prefill.backend, "cuda");
  EXPECT_EQ(split->decode.backend, "cuda");
}

TEST(GpuSplitTest, WhatDoesNotGoTogetherIsSaidWithTheFlags) {
  BackendChoice cpu = Choice({0});
  cpu.backend = "cpu";
  const auto on_cpu = SplitGpus(cpu, cpu, {1});
  EXPECT_TRUE(absl::IsInvalidArgument(on_cpu.status()));
  EXPECT_THAT(std::string(on_cpu.status().message()), HasSubstr("--decode_device=1"));
  const auto too_few = SplitGpus(Choice({0}, 3), Choice({0}, 3), {3, 4});
  EXPECT_TRUE(absl::IsInvalidArgument(too_few.status()));
  EXPECT_THAT(std::string(too_few.status().message()), HasSubstr("--decode_device names 2 GPUs"));
}

}  // namespace
}  // namespace longhaul
