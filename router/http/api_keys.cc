#include "router/http/api_keys.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace longhaul {
namespace {

constexpr size_t kKeyLengthMin = 16;
constexpr size_t kKeyLengthMax = 256;

// Reads every byte of `sent` and tells nothing by its time but that length, which the sender knows.
bool EqualsInConstantTime(absl::string_view sent, absl::string_view key) {
  unsigned difference = sent.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < sent.size(); ++i) {
    difference |= static_cast<unsigned char>(sent[i] ^ key[i % key.size()]);
  }
  return difference == 0;
}

}  // namespace

absl::StatusOr<ApiKeys> ApiKeys::Load(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("cannot read the API keys in ", path,
                                            ": it must be a file with one key a line."));
  }
  return Parse(text.str(), path);
}

absl::StatusOr<ApiKeys> ApiKeys::Parse(absl::string_view text, absl::string_view path) {
  ApiKeys keys;
  int number = 0;
  for (const absl::string_view raw_line : absl::StrSplit(text, '\n')) {
    ++number;
    const absl::string_view line = absl::StripAsciiWhitespace(raw_line);
    if (line.empty() || line.front() == '#') continue;
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    const absl::string_view key = words.front();
    const auto refuse = [&](auto... what) {
      return absl::InvalidArgumentError(absl::StrCat(path, " line ", number, ": ", what...));
    };
    if (words.size() > 2) {
      return refuse("expected 'KEY' or 'KEY TENANT', got ", words.size(), " words.");
    }
    if (key.size() < kKeyLengthMin || key.size() > kKeyLengthMax) {
      return refuse("a key must have ", kKeyLengthMin, " to ", kKeyLengthMax,
                    " characters; this one has ", key.size(), ".");
    }
    if (!std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7f; })) {
      return refuse("a key must be visible ASCII characters.");
    }
    const bool known = std::any_of(keys.entries_.begin(), keys.entries_.end(),
                                   [&](const Entry& entry) { return entry.key == key; });
    if (known) return refuse("this key was given before.");
    keys.entries_.push_back({std::string(key), words.size() == 2 ? std::string(words.back())
                                                                 : absl::StrCat("key-", number)});
  }
  if (keys.entries_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " holds no keys, so nobody could use the API. Add one a line."));
  }
  return keys;
}

std::optional<std::string> ApiKeys::TenantOf(absl::string_view authorization) const {
  constexpr absl::string_view kScheme = "bearer ";
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return std::nullopt;
  const absl::string_view sent =
      absl::StripLeadingAsciiWhitespace(authorization.substr(kScheme.size()));
  if (sent.empty() || sent.size() > kKeyLengthMax) return std::nullopt;
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (EqualsInConstantTime(sent, entry.key)) found = &entry;
  }
  if (found == nullptr) return std::nullopt;
  return found->tenant;
}

}  // namespace longhaul
