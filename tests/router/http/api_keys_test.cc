#include "router/http/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace longhaul {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kFile[] =
    "# keys of the team\n"
    "\n"
    "sk-0123456789abcdef  team-a\r\n"
    "  sk-fedcba9876543210\n";

TEST(ApiKeysTest, KnowsTenantsByTheirKeys) {
  const auto keys = ApiKeys::Parse(kFile, "keys.txt");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->TenantOf("Bearer sk-0123456789abcdef"), "team-a");
  EXPECT_EQ(keys->TenantOf("bearer  sk-fedcba9876543210"), "key-4");
}

TEST(ApiKeysTest, RefusesAllElse) {
  const auto keys = ApiKeys::Parse(kFile, "keys.txt");
  ASSERT_TRUE(keys.ok()) << keys.status();
  const std::string key = "sk-0123456789abcdef";
  const std::vector<std::string> refused = {
      "",
      "Bearer",
      "Bearer ",
      key,
      "Basic " + key,
      "Bearer " + key + "0",
      "Bearer " + key + key,
      "Bearer " + key.substr(1),
      "Bearer " + key.substr(0, key.size() - 1),
      "Bearer SK-0123456789ABCDEF",
      "Bearer team-a",
      "Bearer # keys of the team",
      "Bearer " + std::string(100'000, 'a'),
  };
  for (const std::string& authorization : refused) {
    EXPECT_EQ(keys->TenantOf(authorization), std::nullopt) << authorization.substr(0, 60);
  }
}

TEST(ApiKeysTest, BadFilesNameTheLineAndNotTheKey) {
  const struct {
    std::string text;
    std::string message;
  } kCases[] = {
      {"", "holds no keys"},
      {"# only a comment\n", "holds no keys"},
      {"\nshort-secret\n", "line 2: a key must have 16 to 256 characters; this one has 12"},
      {"sk-0123456789abcdef-secret a b\n", "line 1: expected 'KEY' or 'KEY TENANT', got 3 words"},
      {"sk-0123456789\xc3\xa4-secret\n", "visible ASCII"},
      {std::string(kFile) + "sk-fedcba9876543210 secret", "line 5: this key was given before"},
  };
  for (const auto& [text, message] : kCases) {
    const auto keys = ApiKeys::Parse(text, "keys.txt");
    ASSERT_FALSE(keys.ok()) << text;
    EXPECT_THAT(std::string(keys.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(keys.status().message()), Not(HasSubstr("secret")));
  }
}

TEST(ApiKeysTest, LoadsFromAFile) {
  const std::string path = testing::TempDir() + "/api_keys_test_keys.txt";
  std::ofstream(path) << kFile;
  const auto keys = ApiKeys::Load(path);
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->TenantOf("Bearer sk-0123456789abcdef"), "team-a");
  EXPECT_EQ(ApiKeys::Load(path + ".none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace longhaul
