// The contract suite of the client doors WorkerClient, StatusClient and PrefillClient, over each
// maker: gRPC on loopback, direct calls across two threads, the simulator's control plane.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/contract/client_makers.h"

namespace longhaul {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// A stream as its owner sees it; touched on the owner's loop only.
struct Near {
  std::unique_ptr<NearStream> stream;
  std::vector<int> words;
  std::vector<absl::Status> ends;
  std::function<void()> on_word = [] {};
  std::function<void()> on_end = [] {};
};

class ClientContractTest : public testing::TestWithParam<ClientMaker> {
 protected:
  ~ClientContractTest() override {
    world_->OnOwner([this] { nears_.clear(); });
  }

  OnWord Words(Near* near) {
    return [near](int word) {
      near->words.push_back(word);
      near->on_word();
    };
  }
  OnEnd Ends(Near* near) {
    return [near](absl::Status status) {
      near->ends.push_back(std::move(status));
      near->on_end();
    };
  }
  Near* NewNear() {
    nears_.push_back(std::make_unique<Near>());
    return nears_.back().get();
  }
  Near* Open(int number) {
    Near* const near = NewNear();
    world_->OnOwner([&] { near->stream = world_->Open(number, Words(near), Ends(near)); });
    return near;
  }
  // The stream that asked for `number`, once the worker has it.
  std::shared_ptr<FarStream> Far(int number) {
    std::shared_ptr<FarStream> found;
    EXPECT_TRUE(world_->AwaitWorker([&] {
      for (const auto& stream : world_->streams()) {
        if (stream->number == number) found = stream;
      }
      return found != nullptr;
    }));
    return found;
  }
  void Say(FarStream& far, std::vector<int> words) {
    world_->OnWorker([&] {
      for (const int word : words) far.say(word);
    });
  }
  void End(FarStream& far, const absl::Status& status) {
    world_->OnWorker([&] { far.end(status); });
  }
  bool AwaitWords(Near* near, size_t count) {
    return world_->AwaitOwner([&] { return near->words.size() >= count; });
  }
  bool AwaitEnd(Near* near) {
    return world_->AwaitOwner([&] { return !near->ends.empty(); });
  }
  bool AwaitDropped(const std::shared_ptr<FarStream>& far) {
    return world_->AwaitWorker([&] { return far->dropped; });
  }
  void Drop(Near* near) {
    world_->OnOwner([&] { near->stream.reset(); });
  }

  std::vector<std::unique_ptr<Near>> nears_;
  std::unique_ptr<ClientWorld> world_ = GetParam().make();
};

TEST_P(ClientContractTest, WordsComeInOrderAndThenOneEnd) {
  Near* const near = Open(7);
  const auto far = Far(7);
  std::vector<int> words(1'000);
  std::iota(words.begin(), words.end(), 1);
  Say(*far, words);
  End(*far, absl::OkStatus());
  ASSERT_TRUE(AwaitEnd(near));
  world_->Settle();
  EXPECT_EQ(near->words, words);
  EXPECT_THAT(near->ends, ElementsAre(absl::OkStatus()));
  Drop(near);
  EXPECT_TRUE(AwaitDropped(far));
}

TEST_P(ClientContractTest, AnErrorKeepsItsCodeAndItsWords) {
  Near* const near = Open(7);
  const auto far = Far(7);
  const absl::Status full = absl::ResourceExhaustedError("7 of 7 are here already");
  Say(*far, {1});
  End(*far, full);
  ASSERT_TRUE(AwaitEnd(near));
  EXPECT_THAT(near->words, ElementsAre(1));
  EXPECT_THAT(near->ends, ElementsAre(full));
}

TEST_P(ClientContractTest, AnEndMayComeWithoutAWord) {
  Near* const near = Open(7);
  End(*Far(7), absl::InvalidArgumentError("no"));
  ASSERT_TRUE(AwaitEnd(near));
  world_->Settle();
  EXPECT_THAT(near->words, IsEmpty());
  EXPECT_THAT(near->ends, ElementsAre(absl::InvalidArgumentError("no")));
}

TEST_P(ClientContractTest, DestroyingCancelsAndNothingComesAfterwards) {
  Near* const near = Open(7);
  const auto far = Far(7);
  Say(*far, {1});
  ASSERT_TRUE(AwaitWords(near, 1));
  Drop(near);
  ASSERT_TRUE(AwaitDropped(far));
  Say(*far, {2});
  End(*far, absl::OkStatus());
  world_->Settle();
  EXPECT_THAT(near->words, ElementsAre(1));
  EXPECT_THAT(near->ends, IsEmpty());
}

TEST_P(ClientContractTest, WordsUnderWayAreNotHeardAfterADestruction) {
  Near* const near = Open(7);
  const auto far = Far(7);
  Say(*far, {1, 2, 3});
  End(*far, absl::OkStatus());
  std::vector<int> heard;
  world_->OnOwner([&] {
    near->stream.reset();
    heard = near->words;
  });
  world_->Settle();
  EXPECT_EQ(near->words, heard);
  EXPECT_LE(near->ends.size(), heard.size() / 3);  // only if it was whole before
}

TEST_P(ClientContractTest, ACallDestroyedAtOnceLeavesNothingOpen) {
  for (int number = 1; number <= 20; ++number) {
    Near* const near = NewNear();
    world_->OnOwner([&] {
      near->stream = world_->Open(number, Words(near), Ends(near));
      near->stream.reset();
    });
  }
  world_->Settle();
  EXPECT_TRUE(world_->AwaitWorker([&] {
    for (const auto& stream : world_->streams()) {
      if (!stream->dropped) return false;
    }
    return true;
  }));
  for (const auto& near : nears_) EXPECT_TRUE(near->words.empty() && near->ends.empty());
}

TEST_P(ClientContractTest, ACallMayBeDestroyedFromInsideItsOwnWord) {
  Near* const near = Open(7);
  const auto far = Far(7);
  world_->OnOwner([&] { near->on_word = [near] { near->stream.reset(); }; });
  Say(*far, {1, 2, 3});
  EXPECT_TRUE(AwaitDropped(far));
  world_->Settle();
  EXPECT_THAT(near->words, ElementsAre(1));
  EXPECT_THAT(near->ends, IsEmpty());
}

TEST_P(ClientContractTest, ACallMayBeDestroyedFromInsideItsOwnEnd) {
  Near* const near = Open(7);
  const auto far = Far(7);
  world_->OnOwner([&] { near->on_end = [near] { near->stream.reset(); }; });
  End(*far, absl::OkStatus());
  ASSERT_TRUE(AwaitEnd(near));
  EXPECT_TRUE(AwaitDropped(far));
  world_->Settle();
  EXPECT_EQ(near->ends.size(), 1u);
}

TEST_P(ClientContractTest, ManyCallsAtOnceKeepApart) {
  constexpr int kCalls = 40, kWords = 25;
  for (int number = 1; number <= kCalls; ++number) Open(number);
  for (int word = 0; word < kWords; ++word) {
    for (int number = 1; number <= kCalls; ++number) Say(*Far(number), {1'000 * number + word});
  }
  for (int number = 1; number <= kCalls; ++number) {
    if (number % 2 == 0) {
      End(*Far(number), absl::OkStatus());
      ASSERT_TRUE(AwaitEnd(nears_[number - 1].get()));
    }
    ASSERT_TRUE(AwaitWords(nears_[number - 1].get(), kWords));
  }
  for (int number = 1; number <= kCalls; ++number) {
    const Near& near = *nears_[number - 1];
    ASSERT_EQ(near.words.size(), static_cast<size_t>(kWords));
    for (int word = 0; word < kWords; ++word) EXPECT_EQ(near.words[word], 1'000 * number + word);
    EXPECT_EQ(near.ends.size(), number % 2 == 0 ? 1u : 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ClientContractTest, testing::ValuesIn(AllClientMakers()),
                         [](const auto& info) { return info.param.name; });

// ---- doors to another process

class RemoteClientContractTest : public ClientContractTest {};

TEST_P(RemoteClientContractTest, AWorkerThatIsNotThereIsUnavailable) {
  Near* const near = NewNear();
  world_->OnOwner([&] {
    near->stream = world_->OpenToNobody(Words(near), Ends(near));
    EXPECT_THAT(near->ends, IsEmpty()) << "never from inside the call";
  });
  ASSERT_TRUE(AwaitEnd(near));
  world_->Settle();
  ASSERT_EQ(near->ends.size(), 1u);
  EXPECT_EQ(near->ends[0].code(), absl::StatusCode::kUnavailable) << near->ends[0];
  EXPECT_THAT(near->words, IsEmpty());
}

TEST_P(RemoteClientContractTest, AWorkerThatGoesEndsItsCallsOnceAndAsLost) {
  Near* const near = Open(7);
  Near* const left = Open(8);
  const auto far = Far(7);
  Far(8);
  Say(*far, {1, 2});
  ASSERT_TRUE(AwaitWords(near, 2));
  Drop(left);
  world_->Kill();
  ASSERT_TRUE(AwaitEnd(near));
  world_->Settle();
  EXPECT_THAT(near->words, ElementsAre(1, 2));
  ASSERT_EQ(near->ends.size(), 1u);
  EXPECT_TRUE(absl::IsUnavailable(near->ends[0]) || absl::IsAborted(near->ends[0]))
      << near->ends[0];
  EXPECT_THAT(left->ends, IsEmpty());
}

TEST_P(RemoteClientContractTest, ACallAfterTheWorkerHasGoneIsUnavailable) {
  Open(7);
  Far(7);
  world_->Kill();
  ASSERT_TRUE(AwaitEnd(nears_[0].get()));
  Near* const late = Open(8);
  ASSERT_TRUE(AwaitEnd(late));
  EXPECT_EQ(late->ends[0].code(), absl::StatusCode::kUnavailable) << late->ends[0];
}

INSTANTIATE_TEST_SUITE_P(All, RemoteClientContractTest, testing::ValuesIn(RemoteClientMakers()),
                         [](const auto& info) { return info.param.name; });

// ---- what only the door to prefill workers has

class PrefillClientContractTest : public ClientContractTest {};

TEST_P(PrefillClientContractTest, GrantsArriveInOrderThoughTheyComeWithTheCall) {
  Near* const near = NewNear();
  std::vector<int> granted(200);
  std::iota(granted.begin(), granted.end(), 1);
  world_->OnOwner([&] {
    near->stream = world_->Open(7, Words(near), Ends(near));
    for (const int chunks : granted) near->stream->Grant(chunks);
  });
  const auto far = Far(7);
  EXPECT_TRUE(world_->AwaitWorker([&] { return far->grants.size() >= granted.size(); }));
  EXPECT_EQ(far->grants, granted);
  End(*far, absl::OkStatus());
  ASSERT_TRUE(AwaitEnd(near));
  world_->OnOwner([&] { near->stream->Grant(201); });  // too late, and no matter
  world_->Settle();
  EXPECT_EQ(near->ends.size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(All, PrefillClientContractTest, testing::ValuesIn([] {
                           std::vector<ClientMaker> makers = AllClientMakers();
                           std::erase_if(makers, [](const ClientMaker& maker) {
                             return !maker.name.starts_with("Prefill");
                           });
                           return makers;
                         }()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace longhaul
