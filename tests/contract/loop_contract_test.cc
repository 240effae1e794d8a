// The contract suite of the Loop door, over each of its makers: the thread, virtual time, and the
// simulator's process that can hang (here it never does).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/runtime/run_and_wait.h"
#include "common/runtime/thread_loop.h"
#include "common/runtime/virtual_loop.h"
#include "tools/sim/process_loop.h"

namespace longhaul {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// One loop, and a way to let it run.
class LoopWorld {
 public:
  virtual ~LoopWorld() = default;
  virtual Loop& loop() = 0;
  // Lets the loop run until it has run what is due within `duration_us` of its own time.
  virtual void RunFor(int64_t duration_us) = 0;
  // The loop ends; what it has not run is destroyed.
  virtual void End() = 0;
};

class ThreadWorld final : public LoopWorld {
 public:
  Loop& loop() override { return *loop_; }
  void RunFor(int64_t duration_us) override {
    absl::SleepFor(absl::Microseconds(duration_us));
    RunAndWait(*loop_, [] {});  // timers that are due go before it
  }
  void End() override { loop_.reset(); }

 private:
  std::optional<ThreadLoop> loop_{std::in_place, ThreadLoopOptions{.name = "contract"}};
};

class VirtualWorld final : public LoopWorld {
 public:
  Loop& loop() override { return *loop_; }
  void RunFor(int64_t duration_us) override { loop_->RunFor(duration_us); }
  void End() override { loop_.reset(); }

 private:
  std::optional<VirtualLoop> loop_{std::in_place};
};

class ProcessWorld final : public LoopWorld {
 public:
  Loop& loop() override { return *loop_; }
  void RunFor(int64_t duration_us) override { world_->RunFor(duration_us); }
  void End() override {
    world_.reset();
    loop_.reset();
  }

 private:
  std::optional<VirtualLoop> world_{std::in_place};
  std::optional<ProcessLoop> loop_{std::in_place, &*world_};
};

struct LoopMaker {
  std::string name;
  std::unique_ptr<LoopWorld> (*make)();
};

class LoopContractTest : public testing::TestWithParam<LoopMaker> {
 protected:
  Loop& loop() { return world_->loop(); }

  // Tasks that tell that they ran.
  Loop::Task Say(int word) {
    return [this, word] { Write(word); };
  }
  void Write(int word) {
    absl::MutexLock lock(&mutex_);
    said_.push_back(word);
  }
  std::vector<int> Said() {
    absl::MutexLock lock(&mutex_);
    return said_;
  }

  // On the loop, where the promises are exact.
  void OnLoop(Loop::Task task) {
    loop().Post(std::move(task));
    world_->RunFor(0);
  }

  static constexpr int64_t kTickUs = 20'000;  // long against a thread's delays

  absl::Mutex mutex_;
  std::vector<int> said_;
  std::unique_ptr<LoopWorld> world_ = GetParam().make();
};

TEST_P(LoopContractTest, TasksRunInTheOrderOfPosting) {
  std::vector<int> expected;
  for (int i = 0; i < 1'000; ++i) {
    loop().Post(Say(i));
    expected.push_back(i);
  }
  world_->RunFor(0);
  EXPECT_EQ(Said(), expected);
}

TEST_P(LoopContractTest, ATaskIsNeverRunFromInsidePost) {
  OnLoop([this] {
    loop().Post(Say(2));
    loop().PostAfter(0, Say(3));
    Write(1);
  });
  world_->RunFor(kTickUs);
  EXPECT_THAT(Said(), testing::UnorderedElementsAre(1, 2, 3));
  EXPECT_EQ(Said().front(), 1);
}

TEST_P(LoopContractTest, TimersRunInTheOrderOfTheirTimesAndNeverEarly) {
  std::vector<int64_t> early_us;
  OnLoop([this, &early_us] {
    for (const int ticks : {3, 1, 2}) {
      const int64_t due_us = loop().NowUs() + ticks * kTickUs;
      loop().PostAfter(ticks * kTickUs, [this, ticks, due_us, &early_us] {
        Write(ticks);
        if (loop().NowUs() < due_us) early_us.push_back(due_us - loop().NowUs());
      });
    }
  });
  EXPECT_THAT(Said(), IsEmpty());
  world_->RunFor(4 * kTickUs);
  EXPECT_THAT(Said(), ElementsAre(1, 2, 3));
  EXPECT_THAT(early_us, IsEmpty());
}

TEST_P(LoopContractTest, TimersOfOneDelayRunInTheOrderOfPosting) {
  OnLoop([this] {
    for (int i = 0; i < 10; ++i) loop().PostAfter(kTickUs, Say(i));
  });
  world_->RunFor(2 * kTickUs);
  EXPECT_THAT(Said(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST_P(LoopContractTest, ATimeThatHasPassedIsNow) {
  loop().PostAfter(-5 * kTickUs, Say(1));
  world_->RunFor(kTickUs);
  EXPECT_THAT(Said(), ElementsAre(1));
}

TEST_P(LoopContractTest, ACancelledTimerDoesNotRunEvenWhenItIsDue) {
  const auto held = std::make_shared<int>();
  OnLoop([this, held] {
    const auto before = held.use_count();
    const Loop::TimerId due = loop().PostAfter(0, [this, held] { Write(1); });
    const Loop::TimerId later = loop().PostAfter(kTickUs, [this, held] { Write(2); });
    loop().PostAfter(kTickUs, Say(3));
    loop().CancelTimer(due);
    loop().CancelTimer(later);
    EXPECT_EQ(held.use_count(), before) << "a cancelled task is destroyed at once";
  });
  world_->RunFor(2 * kTickUs);
  EXPECT_THAT(Said(), ElementsAre(3));
}

TEST_P(LoopContractTest, UnknownAndSpentTimersMayBeCancelled) {
  OnLoop([this] {
    loop().CancelTimer(0);
    loop().CancelTimer(1'000'000);
    const auto own = std::make_shared<Loop::TimerId>();
    *own = loop().PostAfter(0, [this, own] {
      loop().CancelTimer(*own);  // from inside itself
      Write(1);
    });
    loop().PostAfter(kTickUs, [this, own] {
      loop().CancelTimer(*own);
      Write(2);
    });
  });
  world_->RunFor(2 * kTickUs);
  EXPECT_THAT(Said(), ElementsAre(1, 2));
}

TEST_P(LoopContractTest, TimerIdsAreNeverZeroAndNeverUsedAgain) {
  std::vector<Loop::TimerId> ids;
  OnLoop([this, &ids] {
    for (int i = 0; i < 100; ++i) {
      ids.push_back(loop().PostAfter(kTickUs, [] {}));
      if (i % 2 == 0) loop().CancelTimer(ids.back());
    }
  });
  world_->RunFor(2 * kTickUs);
  OnLoop([this, &ids] { ids.push_back(loop().PostAfter(0, [] {})); });
  std::sort(ids.begin(), ids.end());
  EXPECT_GT(ids.front(), 0u);
  EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end());
}

TEST_P(LoopContractTest, WhatATaskHoldsGoesWhenItHasRun) {
  const auto held = std::make_shared<int>();
  loop().Post([held] {});
  loop().PostAfter(0, [held] {});
  world_->RunFor(kTickUs);
  EXPECT_EQ(held.use_count(), 1);
}

TEST_P(LoopContractTest, ATaskMayBeDestroyedByOneThatUsesTheLoop) {
  // What a dropped task held says so by the same loop.
  struct Held {
    explicit Held(std::function<void()> last) : last(std::move(last)) {}
    ~Held() { last(); }
    std::function<void()> last;
  };
  OnLoop([this] {
    auto held = std::make_shared<Held>([this] {
      const Loop::TimerId never = loop().PostAfter(0, Say(1));
      loop().CancelTimer(never);
      loop().Post(Say(2));
    });
    const Loop::TimerId dropped = loop().PostAfter(kTickUs, [held = std::move(held)] {});
    loop().CancelTimer(dropped);
  });
  world_->RunFor(2 * kTickUs);
  EXPECT_THAT(Said(), ElementsAre(2));
}

TEST_P(LoopContractTest, WhatIsLeftWhenTheLoopEndsIsDestroyedUnrun) {
  const auto held = std::make_shared<int>();
  loop().PostAfter(1'000 * kTickUs, [this, held] { Write(1); });
  world_->RunFor(kTickUs);
  world_->End();
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_THAT(Said(), IsEmpty());
}

TEST_P(LoopContractTest, TimeGoesForwardOnly) {
  int64_t before_us = loop().NowUs();
  for (int i = 0; i < 100; ++i) {
    world_->RunFor(i % 10 == 0 ? 100 : 0);
    const int64_t now_us = loop().NowUs();
    EXPECT_GE(now_us, before_us);
    before_us = now_us;
  }
}

template <typename World>
std::unique_ptr<LoopWorld> Make() {
  return std::make_unique<World>();
}

INSTANTIATE_TEST_SUITE_P(All, LoopContractTest,
                         testing::Values(LoopMaker{"Thread", Make<ThreadWorld>},
                                         LoopMaker{"Virtual", Make<VirtualWorld>},
                                         LoopMaker{"Process", Make<ProcessWorld>}),
                         [](const auto& info) { return info.param.name; });

// ---- what only a thread can be asked

TEST(ThreadLoopTest, EachOfManyThreadsKeepsItsOrder) {
  ThreadLoop loop({.name = "contract"});
  constexpr int kThreads = 4, kTasks = 2'000;
  std::vector<std::vector<int>> ran(kThreads);  // touched on the loop only
  {
    std::vector<std::unique_ptr<ThreadLoop>> posters;
    for (int thread = 0; thread < kThreads; ++thread) {
      posters.push_back(std::make_unique<ThreadLoop>(ThreadLoopOptions{.name = "poster"}));
      posters.back()->Post([&, thread] {
        for (int i = 0; i < kTasks; ++i) {
          loop.Post([&ran, thread, i] { ran[thread].push_back(i); });
        }
      });
    }
    for (const auto& poster : posters) RunAndWait(*poster, [] {});
  }
  RunAndWait(loop, [&] {
    for (const std::vector<int>& order : ran) {
      EXPECT_EQ(order.size(), static_cast<size_t>(kTasks));
      EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
    }
  });
}

TEST(ThreadLoopTest, ATaskForALoopThatHasStoppedIsDestroyed) {
  ThreadLoop loop({.name = "contract"});
  loop.Stop();
  loop.Stop();
  const auto held = std::make_shared<int>();
  loop.Post([held] { ADD_FAILURE(); });
  loop.CancelTimer(loop.PostAfter(0, [held] { ADD_FAILURE(); }));
  EXPECT_EQ(held.use_count(), 1);
}

// ---- what only a process that hangs can be asked

TEST(ProcessLoopTest, WhatIsDueInAHangRunsAfterItInOrder) {
  VirtualLoop world;
  ProcessLoop loop(&world);
  std::vector<int> said;
  const auto say = [&said](int word) { return [&said, word] { said.push_back(word); }; };
  loop.PostAfter(20, say(2));
  loop.PostAfter(10, say(1));
  const Loop::TimerId cancelled = loop.PostAfter(15, say(-1));
  loop.PostAfter(100, say(4));
  loop.Hang();
  world.RunFor(50);
  loop.Post(say(3));
  loop.PostAfter(50, say(5));  // due with 4, and posted later
  world.RunFor(0);
  EXPECT_THAT(said, IsEmpty());
  loop.CancelTimer(cancelled);  // though it is overdue
  world.PostAfter(50, [&] { loop.GoOn(); });
  world.RunFor(50);
  EXPECT_THAT(said, ElementsAre(1, 2, 3, 4, 5));
}

TEST(ProcessLoopTest, AHangMayFollowAHangAtOnce) {
  VirtualLoop world;
  ProcessLoop loop(&world);
  std::vector<int> said;
  for (int i = 0; i < 5; ++i) loop.Post([&said, i] { said.push_back(i); });
  loop.Hang();
  world.RunFor(1);
  loop.GoOn();
  loop.Hang();
  loop.Post([&said] { said.push_back(5); });
  world.RunFor(1);
  EXPECT_THAT(said, IsEmpty());
  loop.GoOn();
  world.RunFor(0);
  EXPECT_THAT(said, ElementsAre(0, 1, 2, 3, 4, 5));
}

}  // namespace
}  // namespace longhaul
