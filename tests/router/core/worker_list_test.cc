#include "router/core/worker_list.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/core/api_keys.h"

namespace longhaul {
namespace {

using ::testing::HasSubstr;

TEST(WorkerList, ReadsNamesAndAddresses) {
  const auto workers = ParseWorkerList("--decode", "a=127.0.0.1:1, b=[::1]:2").value();
  ASSERT_EQ(workers.size(), 2u);
  EXPECT_EQ(workers[0].name, "a");
  EXPECT_EQ(workers[0].address, "127.0.0.1:1");
  EXPECT_EQ(workers[1].address, "[::1]:2");
  EXPECT_TRUE(ParseWorkerList("--decode", "")->empty());
}

TEST(WorkerList, NamesTheFlagAndTheEntryThatIsWrong) {
  for (const char* bad :
       {"127.0.0.1:1", "a=", "=h:1", "a=h", "a=h:99999", "a=h:0", "a=h:1,a=h:2"}) {
    const auto status = ParseWorkerList("--decode", bad).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--decode")) << bad;
  }
}

TEST(ApiKeys, KnowsItsKeysOnly) {
  const ApiKeys keys = ApiKeys::Parse("# team a\nalpha\n\n  beta \n").value();
  EXPECT_TRUE(keys.Check("Bearer alpha").ok());
  EXPECT_TRUE(keys.Check("bearer beta").ok());
  for (const char* wrong :
       {"", "alpha", "Basic alpha", "Bearer", "Bearer alph", "Bearer alphaa", "Bearer # team a"}) {
    EXPECT_TRUE(absl::IsUnauthenticated(keys.Check(wrong))) << wrong;
  }
  EXPECT_TRUE(ApiKeys().Check("").ok());
  EXPECT_FALSE(ApiKeys::Parse("\n# none\n").ok());
}

}  // namespace
}  // namespace longhaul
