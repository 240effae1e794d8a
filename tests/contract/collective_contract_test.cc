#include "tests/contract/collective_contract_test.h"

#include <gmock/gmock.h>

#include <chrono>
#include <cmath>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"

namespace longhaul {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSoon = std::chrono::seconds(2);

std::vector<float> Values(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> values(count);
  for (float& value : values) value = std::exp(6 * normal(random)) * normal(random);
  return values;
}

}  // namespace

void CollectiveContractTest::OnRanks(const std::function<void(int)>& body, int without) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < width(); ++rank) {
    if (rank != without) threads.emplace_back(body, rank);
  }
  for (std::thread& thread : threads) thread.join();
}

std::vector<std::vector<float>> CollectiveContractTest::Reduced(
    const std::vector<std::vector<float>>& values, int64_t columns) {
  std::vector<std::vector<float>> sums(width());
  OnRanks([&](int rank) {
    const auto count = static_cast<int64_t>(values[rank].size());
    float* const data = world_->Up(rank, values[rank]);
    world_->ranks[rank]->AllReduce({data, count / columns, columns});
    sums[rank] = world_->Down(rank, data, count);
  });
  return sums;
}

TEST_P(CollectiveContractTest, RanksKnowTheirPlace) {
  for (int rank = 0; rank < width(); ++rank) {
    EXPECT_EQ(world_->ranks[rank]->shard().rank, rank);
    EXPECT_EQ(world_->ranks[rank]->shard().width, width());
    EXPECT_TRUE(world_->ranks[rank]->status().ok());
  }
}

TEST_P(CollectiveContractTest, EveryRankHasTheSameBitsOfTheSum) {
  for (const int64_t rows : {1, 2, 33, 700}) {
    constexpr int64_t kColumns = 97;
    std::vector<std::vector<float>> values;
    for (int rank = 0; rank < width(); ++rank) {
      values.push_back(Values(rows * kColumns, rows * 10 + rank));
    }
    const auto sums = Reduced(values, kColumns);
    for (int64_t i = 0; i < rows * kColumns; ++i) {
      double sum = 0, size = 0;
      for (const auto& part : values) {
        sum += double{part[i]};
        size += std::abs(double{part[i]});
      }
      ASSERT_NEAR(sums[0][i], sum, size * width() * 0x1p-24) << rows << " rows, element " << i;
    }
    for (int rank = 1; rank < width(); ++rank) ASSERT_EQ(sums[rank], sums[0]) << rows << " rows";
  }
}

TEST_P(CollectiveContractTest, ARowsSumDoesNotSeeItsNeighbours) {
  constexpr int64_t kRows = 257;
  constexpr int64_t kColumns = 64;
  std::vector<std::vector<float>> values;
  for (int rank = 0; rank < width(); ++rank) values.push_back(Values(kRows * kColumns, 50 + rank));
  const std::vector<float> together = Reduced(values, kColumns)[0];
  for (const int64_t row : {0, 100, 256}) {
    std::vector<std::vector<float>> alone;
    for (const auto& part : values) {
      alone.emplace_back(part.begin() + row * kColumns, part.begin() + (row + 1) * kColumns);
    }
    EXPECT_EQ(Reduced(alone, kColumns)[0],
              std::vector<float>(together.begin() + row * kColumns,
                                 together.begin() + (row + 1) * kColumns));
  }
}

TEST_P(CollectiveContractTest, GatherPutsTheRanksColumnsBesideEachOther) {
  for (const int64_t rows : {1, 5, 600}) {
    const int64_t columns = 8 * width() + 3;  // shares of different sizes
    const std::vector<float> whole = Values(rows * columns, rows);
    std::vector<float> gathered;
    OnRanks([&](int rank) {
      const ShardRange share = ShareOf(columns, {rank, width()});
      std::vector<float> part;
      for (int64_t row = 0; row < rows; ++row) {
        const auto from = whole.begin() + row * columns + share.first;
        part.insert(part.end(), from, from + share.count);
      }
      float* const out = rank == 0 ? world_->Up(rank, std::vector<float>(rows * columns)) : nullptr;
      float* const mine = world_->Up(rank, part);
      world_->ranks[rank]->Gather({out, rows, columns}, {mine, rows, share.count});
      if (rank == 0) gathered = world_->Down(rank, out, rows * columns);
      world_->Down(rank, mine, 1);
    });
    EXPECT_EQ(gathered, whole) << rows << " rows";
  }
}

TEST_P(CollectiveContractTest, OneRanksErrorIsEverybodysAndTheGroupGoesOn) {
  const int failing = width() - 1;
  for (int round = 0; round < 50; ++round) {
    std::vector<absl::Status> agreed(width());
    OnRanks([&](int rank) {
      Collective& collective = *world_->ranks[rank];
      agreed[rank] = collective.Agree(
          rank == failing ? absl::ResourceExhaustedError(absl::StrCat("round ", round))
                          : absl::OkStatus());
      EXPECT_TRUE(collective.Agree(absl::OkStatus()).ok());
    });
    for (const absl::Status& status : agreed) {
      EXPECT_EQ(status, absl::ResourceExhaustedError(absl::StrCat("round ", round)));
    }
  }
  EXPECT_EQ(Reduced(std::vector<std::vector<float>>(width(), {1.0f}), 1)[0],
            std::vector<float>{static_cast<float>(width())});
}

TEST_P(CollectiveContractTest, AfterAnAbortNothingWaits) {
  const auto start = Clock::now();
  world_->ranks[0]->Abort(absl::InternalError("a test's whim"));
  world_->ranks[0]->Abort(absl::InternalError("another"));
  OnRanks([&](int rank) {
    Collective& collective = *world_->ranks[rank];
    float* const data = world_->Up(rank, std::vector<float>(64));
    for (int i = 0; i < 3; ++i) collective.AllReduce({data, 1, 64});
    collective.Gather({data, 1, 64}, {data, 1, ShareOf(64, collective.shard()).count});
    world_->Down(rank, data, 64);
    EXPECT_EQ(collective.Agree(absl::OkStatus()).code(), absl::StatusCode::kAborted);
    EXPECT_EQ(collective.status().code(), absl::StatusCode::kAborted);
    EXPECT_THAT(std::string(collective.status().message()), testing::HasSubstr("a test's whim"));
  });
  EXPECT_LT(Clock::now() - start, kSoon);
}

// The others wait in an operation that the last rank never comes to.
TEST_P(CollectiveContractTest, ARankThatGoesEndsTheOthersWait) {
  if (width() == 1) GTEST_SKIP() << "one rank waits for nobody";
  const int gone = width() - 1;
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    world_->ranks[gone].reset();
  });
  const auto start = Clock::now();
  OnRanks(
      [&](int rank) {
        Collective& collective = *world_->ranks[rank];
        float* const data = world_->Up(rank, std::vector<float>(4096));
        collective.AllReduce({data, 1, 4096});
        collective.AllReduce({data, 1, 4096});
        world_->Down(rank, data, 4096);
        EXPECT_EQ(collective.status().code(), absl::StatusCode::kAborted);
        EXPECT_THAT(std::string(collective.status().message()),
                    testing::HasSubstr(absl::StrCat("rank ", gone, " is gone")));
      },
      /*without=*/gone);
  killer.join();
  EXPECT_LT(Clock::now() - start, kSoon);
}

// Whenever it comes, an abort leaves no rank in another's memory, and nobody waiting.
TEST_P(CollectiveContractTest, AnAbortAtAnyMomentEndsAll) {
  for (int round = 0; round < 20; ++round) {
    world_ = GetParam().make();
    std::thread killer([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(round * 150));
      world_->ranks[round % width()]->Abort(absl::InternalError("now"));
    });
    const auto start = Clock::now();
    OnRanks([&](int rank) {
      Collective& collective = *world_->ranks[rank];
      float* const data = world_->Up(rank, std::vector<float>(1 << 14));
      while (collective.status().ok() && Clock::now() - start < 2 * kSoon) {
        collective.AllReduce({data, 1 << 7, 1 << 7});
      }
      world_->Down(rank, data, 1);
    });
    killer.join();
    EXPECT_LT(Clock::now() - start, kSoon);
  }
}

}  // namespace longhaul
