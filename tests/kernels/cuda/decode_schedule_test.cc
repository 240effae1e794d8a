#include "kernels/cuda/decode_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <queue>
#include <random>
#include <set>
#include <utility>

namespace longhaul {
namespace {

std::vector<DecodeRow> Rows(const std::vector<int32_t>& keys) {
  std::vector<DecodeRow> rows;
  int32_t table = 0;
  for (const int32_t k : keys) {
    rows.push_back({k, table, k - 1});
    table += (k + 63) / 64;
  }
  return rows;
}

DecodeSchedule Plan(const std::vector<DecodeRow>& rows) {
  DecodeSchedule schedule;
  PlanDecode(rows, &schedule);
  return schedule;
}

int32_t KeysOf(const DecodeItem& item) {
  const int32_t first = item.first_part * kDecodePartKeys;
  return std::min(item.keys, first + item.parts * kDecodePartKeys) - first;
}

// The busiest thread block's keys over the mean's, when each takes the queue's next item (of one kv
// head) as soon as it is free.
double Imbalance(const std::vector<int32_t>& keys, int kv_heads, int thread_blocks) {
  std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> loads;
  for (int i = 0; i < thread_blocks; ++i) loads.push(0);
  int64_t total = 0;
  for (const DecodeItem& item : Plan(Rows(keys)).items) {
    for (int head = 0; head < kv_heads; ++head) {
      const int64_t load = loads.top() + KeysOf(item);
      loads.pop();
      loads.push(load);
      total += KeysOf(item);
    }
  }
  int64_t max = 0;
  for (; !loads.empty(); loads.pop()) max = std::max(max, loads.top());
  return static_cast<double>(max) * thread_blocks / static_cast<double>(total);
}

std::vector<int32_t> Mix(std::initializer_list<std::pair<int, int32_t>> counts) {
  std::vector<int32_t> keys;
  for (const auto& [rows, length] : counts) keys.insert(keys.end(), rows, length);
  return keys;
}

TEST(DecodeScheduleTest, HasEveryPartOnce) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<int32_t> keys(1 + random() % 130);
    for (int32_t& k : keys) k = 1 + static_cast<int32_t>(random() % 20000);
    keys[0] = 1 + round * 128;
    const std::vector<DecodeRow> rows = Rows(keys);
    const DecodeSchedule schedule = Plan(rows);
    std::set<std::pair<int32_t, int32_t>> parts;
    std::set<int32_t> slots;
    std::map<int32_t, int64_t> row_keys;
    for (const DecodeItem& item : schedule.items) {
      EXPECT_EQ(item.keys, keys[item.row]);
      EXPECT_EQ(item.table, rows[item.row].table);
      EXPECT_EQ(item.settled, rows[item.row].settled);
      row_keys[item.row] += KeysOf(item);
      for (int32_t part = item.first_part; part < item.first_part + item.parts; ++part) {
        EXPECT_TRUE(parts.emplace(item.row, part).second);
        EXPECT_GT(item.keys, part * kDecodePartKeys);
        if (DecodeParts(item.keys) == 1) continue;
        EXPECT_TRUE(slots.insert(item.slot + part).second);
      }
    }
    for (size_t row = 0; row < keys.size(); ++row) {
      EXPECT_EQ(row_keys[static_cast<int32_t>(row)], keys[row]);
    }
    EXPECT_EQ(static_cast<int32_t>(slots.size()), schedule.slots);
    EXPECT_LE(static_cast<int64_t>(schedule.items.size()),
              DecodeItemsMax(static_cast<int64_t>(keys.size()),
                             std::accumulate(keys.begin(), keys.end(), int64_t{0})));
    EXPECT_LE(schedule.slots, static_cast<int32_t>(schedule.items.size()));
    if (slots.empty()) continue;
    EXPECT_EQ(*slots.rbegin(), schedule.slots - 1);
  }
}

TEST(DecodeScheduleTest, TheLongestItemsComeFirst) {
  const DecodeSchedule schedule = Plan(Rows({700, 3, 512, 1400, 0, 100}));
  EXPECT_TRUE(std::is_sorted(
      schedule.items.begin(), schedule.items.end(),
      [](const DecodeItem& a, const DecodeItem& b) { return KeysOf(a) > KeysOf(b); }));
  EXPECT_EQ(schedule.items.size(), 2u + 1 + 1 + 3 + 1);
}

TEST(DecodeScheduleTest, KeepsAllProcessorsBusyForAnyMix) {
  constexpr int kProcessors = 132;
  for (const std::vector<int32_t>& keys :
       {Mix({{32, 8192}}), Mix({{1, 131072}}), Mix({{128, 1024}}), Mix({{1, 131072}, {31, 4096}}),
        Mix({{64, 2048}}), Mix({{8, 131072}}), Mix({{2, 65536}, {62, 1024}})}) {
    EXPECT_LE(Imbalance(keys, 8, kProcessors), 1.05) << keys.size() << " rows, " << keys[0];
  }
}

TEST(DecodeScheduleTest, EmptyRowsAndStepsHaveNoItems) {
  EXPECT_TRUE(Plan({}).items.empty());
  EXPECT_TRUE(Plan(Rows({0, 0})).items.empty());
  DecodeSchedule reused = Plan(Rows({5000}));
  PlanDecode({}, &reused);
  EXPECT_TRUE(reused.items.empty());
  EXPECT_EQ(reused.slots, 0);
}

}  // namespace
}  // namespace longhaul
