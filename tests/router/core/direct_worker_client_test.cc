#include "common/engine/direct_worker_client.h"

#include <memory>
#include <vector>

#include "common/runtime/virtual_loop.h"
#include "gtest/gtest.h"
#include "tests/router/core/fake_worker.h"

namespace longhaul {
namespace {

class DirectWorkerClientTest : public ::testing::Test {
 protected:
  VirtualLoop loop_;
  FakeWorker worker_{"d0", "decode", 1};
  FakeWorkerClient inner_{&loop_, &worker_};
  std::unique_ptr<WorkerClient> client_ = MakeDirectWorkerClient(&loop_, &loop_, &inner_);
  std::vector<int32_t> tokens_;
  std::vector<absl::Status> ends_;

  std::unique_ptr<WorkerCall> Generate() {
    GenerateRequest request;
    request.add_tokens(1);
    request.set_prompt_tokens(1);
    auto call = client_->Generate(
        request,
        [this](GenerateEvent event) {
          for (const auto& token : event.tokens()) tokens_.push_back(token.token());
        },
        [this](absl::Status status) { ends_.push_back(status); });
    EXPECT_TRUE(worker_.attempts.empty());  // never inline
    return call;
  }
};

TEST_F(DirectWorkerClientTest, CarriesEventsInOrderAndOneEnd) {
  auto call = Generate();
  loop_.RunUntilIdle();
  ASSERT_EQ(worker_.attempts.size(), 1u);
  worker_.attempts[0]->Tokens(2);
  worker_.attempts[0]->Tokens(1, true);
  EXPECT_TRUE(tokens_.empty());  // never inline
  loop_.RunUntilIdle();
  EXPECT_EQ(tokens_, (std::vector<int32_t>{1000, 1001, 1002}));
  ASSERT_EQ(ends_.size(), 1u);
  EXPECT_TRUE(ends_[0].ok());
}

TEST_F(DirectWorkerClientTest, DestroyingCancelsAndSilences) {
  auto call = Generate();
  loop_.RunUntilIdle();
  worker_.attempts[0]->Tokens(2);
  call.reset();
  loop_.RunUntilIdle();
  EXPECT_TRUE(worker_.attempts[0]->cancelled);
  EXPECT_TRUE(tokens_.empty());
  EXPECT_TRUE(ends_.empty());
}

TEST_F(DirectWorkerClientTest, ACallCancelledBeforeItCrossedNeverStarts) {
  Generate().reset();
  loop_.RunUntilIdle();
  EXPECT_TRUE(worker_.attempts.empty() || worker_.attempts[0]->cancelled);
  EXPECT_EQ(worker_.open_attempts(), 0);
  EXPECT_TRUE(ends_.empty());
}

TEST_F(DirectWorkerClientTest, WatchesStatus) {
  std::vector<uint64_t> seen;
  auto client = MakeDirectStatusClient(&loop_, &loop_, &inner_);
  auto call = client->WatchStatus(
      1000, [&](WorkerStatus status) { seen.push_back(status.incarnation()); },
      [this](absl::Status status) { ends_.push_back(status); });
  loop_.RunUntilIdle();
  worker_.status.set_incarnation(2);
  worker_.Report();
  worker_.BreakStatus();
  loop_.RunUntilIdle();
  EXPECT_EQ(seen, (std::vector<uint64_t>{1, 2}));
  ASSERT_EQ(ends_.size(), 1u);
  EXPECT_TRUE(absl::IsUnavailable(ends_[0]));
}

}  // namespace
}  // namespace longhaul
