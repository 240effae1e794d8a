// The self-test between two real processes: this binary, run again by itself.
#include "kv_transfer/self_test_process.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "common/runtime/thread_loop.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/contract/peer_wire.h"
#include "tests/contract/piece_memory.h"

namespace longhaul {
namespace {

class SelfTestProcessTest : public testing::TestWithParam<PeerWire> {
 protected:
  void SetUp() override {
    auto memory = PieceMemory::Open(GetParam().kind);
    if (absl::IsUnavailable(memory.status())) GTEST_SKIP() << memory.status();
    memory_ = *std::move(memory);
    auto transport = GetParam().make(&memory_->memory());
    if (GetParam().kind != MemoryKind::kHost && absl::IsUnavailable(transport.status())) {
      GTEST_SKIP() << transport.status();
    }
    if (GetParam().peer_device >= std::max(CudaDevices(), 1)) GTEST_SKIP() << "one GPU";
    transport_ = *std::move(transport);
    loop_ = std::make_unique<ThreadLoop>(ThreadLoopOptions{.name = "transfer"}, transport_.get());
  }

  absl::StatusOr<LinkSpeed> Measure(const SelfTestOptions& options, const std::string& argument) {
    return RunSelfTestWithProcess(loop_.get(), transport_.get(), &memory_->memory(), options,
                                  {argument});
  }

  std::unique_ptr<PieceMemory> memory_;
  std::unique_ptr<WireTransport> transport_;
  std::unique_ptr<ThreadLoop> loop_;
};

TEST_P(SelfTestProcessTest, MeasuresAndNamesThePath) {
  const PeerWire& wire = GetParam();
  const auto speed =
      Measure(wire.kind == MemoryKind::kCuda ? kDeviceSelfTest : SelfTestOptions(), wire.name);
  ASSERT_TRUE(speed.ok()) << speed.status();
  EXPECT_GT(speed->bytes_per_s, wire.bytes_per_s_min);
  EXPECT_TRUE(absl::StrContains(speed->path, wire.path)) << speed->path;
}

TEST_P(SelfTestProcessTest, APathThatIsSlowIsMeasuredToo) {
  SelfTestOptions options{.messages = 8, .floor_bytes_per_s = 1e15};
  const auto speed = Measure(options, GetParam().name);
  ASSERT_TRUE(speed.ok()) << speed.status();
  EXPECT_LT(speed->bytes_per_s, options.floor_bytes_per_s);
}

TEST_P(SelfTestProcessTest, ASecondProcessThatCannotSendSaysWhy) {
  const auto speed = Measure({}, "refuse");
  EXPECT_TRUE(absl::IsUnavailable(speed.status())) << speed.status();
  EXPECT_TRUE(absl::StrContains(speed.status().message(), "no such wire")) << speed.status();
}

TEST_P(SelfTestProcessTest, ASecondProcessThatEndsIsNotWaitedFor) {
  const auto speed = Measure({}, "end");
  EXPECT_TRUE(absl::IsUnavailable(speed.status())) << speed.status();
}

INSTANTIATE_TEST_SUITE_P(Wires, SelfTestProcessTest, testing::ValuesIn(PeerWires()),
                         [](const testing::TestParamInfo<PeerWire>& info) {
                           return info.param.name;
                         });

int SecondProcess(const std::string& what, int fd) {
  if (what == "end") return 0;
  if (what == "refuse") {
    RefuseSelfTest(fd, absl::UnavailableError("no such wire"));
    return 0;
  }
  const PeerWire& wire = PeerWireOf(what);
  const auto memory = *PieceMemory::Open(wire.kind, wire.peer_device);
  const auto transport = *wire.make(&memory->memory());
  ThreadLoop loop({.name = "transfer"}, transport.get());
  return ServeSelfTest(fd, &loop, transport.get(), &memory->memory()).ok() ? 0 : 1;
}

}  // namespace
}  // namespace longhaul

int main(int argc, char** argv) {
  constexpr absl::string_view kFlag = "--self_test_fd=";
  int fd = -1;
  if (argc == 3 && absl::StartsWith(argv[2], kFlag) &&
      absl::SimpleAtoi(absl::string_view(argv[2]).substr(kFlag.size()), &fd)) {
    return longhaul::SecondProcess(argv[1], fd);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
