#include "router/api/json_with_ids.h"

#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "router/api/json_reader.h"

namespace longhaul {
namespace {

namespace json = boost::json;

constexpr size_t kIdBytes = 5;  // about, with its comma; for a first guess at their number

struct Digits {
  int count = 0;       // 0 to 8; more may follow
  uint32_t value = 0;  // undefined for none
};

// The decimal digits that `text` starts with, eight at a time: bytes that are none are found in one
// word, the digits before them shifted to its end, and neighbours summed up in three steps.
Digits ReadDigits(absl::string_view text) {
  static_assert(std::endian::native == std::endian::little);
  constexpr uint64_t kHighNibbles = 0xF0F0F0F0F0F0F0F0, kZeros = 0x3030303030303030;
  uint64_t word = 0;
  if (text.size() >= sizeof(word)) {  // a copy of known length is one instruction
    std::memcpy(&word, text.data(), sizeof(word));
  } else {
    std::memcpy(&word, text.data(), text.size());
  }
  const uint64_t no_digit =
      ((word & kHighNibbles) ^ kZeros) | (((word + 0x0606060606060606) & kHighNibbles) ^ kZeros);
  const int count = std::countr_zero(no_digit) / 8;
  if (count == 0) return {};
  word <<= 64 - 8 * count;
  word = ((word & 0x0F0F0F0F0F0F0F0F) * (10 * (1 << 8) + 1)) >> 8;
  word = ((word & 0x00FF00FF00FF00FF) * (100 * (1 << 16) + 1)) >> 16;
  word = ((word & 0x0000FFFF0000FFFF) * (10000 * (uint64_t{1} << 32) + 1)) >> 32;
  return {count, static_cast<uint32_t>(word)};
}

// Walks over the text of one JSON object. It finds its way in valid JSON; in anything else it may
// go astray, but never out of the text.
class ObjectText {
 public:
  explicit ObjectText(absl::string_view text) : text_(text) {}

  size_t position() const { return at_; }
  bool Take(char c) {
    SkipSpace();
    if (Peek() != c) return false;
    ++at_;
    return true;
  }
  // Nothing for a key with an escape: which key it is, nobody needs to know here.
  std::optional<absl::string_view> TakeKey() {
    if (!Take('"')) return std::nullopt;
    const size_t end = text_.find_first_of("\"\\", at_);
    if (end == absl::string_view::npos || text_[end] == '\\') return std::nullopt;
    const absl::string_view key = text_.substr(at_, end - at_);
    at_ = end + 1;
    if (!Take(':')) return std::nullopt;
    return key;
  }
  void SkipValue() {
    int depth = 0;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '"') {
        SkipString();
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (c == '}' || c == ']' || c == ',') {
        if (depth == 0) return;
        depth -= c != ',';
      }
    }
  }
  // From behind its '[' to behind its ']'. False unless all of it are ids below `end`.
  bool TakeIds(int64_t end, std::vector<int32_t>* ids) {
    do {
      SkipSpace();
      const Digits digits = ReadDigits(text_.substr(at_));
      const bool leading_zero = digits.count > 1 && text_[at_] == '0';
      if (digits.count == 0 || leading_zero || digits.value >= end) return false;
      ids->push_back(static_cast<int32_t>(digits.value));
      at_ += digits.count;
    } while (Take(','));
    return Take(']');
  }

 private:
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void SkipSpace() {
    while (Peek() == ' ' || Peek() == '\n' || Peek() == '\r' || Peek() == '\t') ++at_;
  }
  // From its first quote onto its last.
  void SkipString() {
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) at_ += text_[at_] == '\\';
  }

  const absl::string_view text_;
  size_t at_ = 0;
};

struct Cut {
  std::vector<int32_t> ids;
  std::string rest;
};

std::optional<Cut> CutIds(absl::string_view body, absl::string_view name, int64_t end) {
  ObjectText text(body);
  if (!text.Take('{')) return std::nullopt;
  std::optional<Cut> cut;
  size_t kept = 0;
  do {
    const std::optional<absl::string_view> key = text.TakeKey();
    if (!key.has_value()) return std::nullopt;
    if (*key != name) {
      text.SkipValue();
      continue;
    }
    // Of two fields with one name the last counts: that is for the parser to find.
    if (cut.has_value() || !text.Take('[')) return std::nullopt;
    cut.emplace();
    cut->ids.reserve((body.size() - text.position()) / kIdBytes);
    cut->rest = std::string(body.substr(0, text.position()));
    if (!text.TakeIds(end, &cut->ids)) return std::nullopt;
    kept = text.position() - 1;
  } while (text.Take(','));
  if (cut.has_value()) absl::StrAppend(&cut->rest, body.substr(kept));
  return cut;
}

}  // namespace

absl::StatusOr<JsonWithIds> ParseJsonWithIds(absl::string_view body, absl::string_view name,
                                             int64_t vocabulary_tokens, int depth_max,
                                             json::storage_ptr storage) {
  const int64_t end = vocabulary_tokens > 0 ? vocabulary_tokens : int64_t{1} << 31;
  if (std::optional<Cut> cut = CutIds(body, name, end); cut.has_value()) {
    absl::StatusOr<json::value> object = ParseJsonObject(cut->rest, depth_max, storage);
    if (object.ok()) return JsonWithIds{*std::move(object), std::move(cut->ids)};
    // The walk went astray, or an error's place must be told: the whole text knows both.
  }
  LH_ASSIGN_OR_RETURN(json::value object, ParseJsonObject(body, depth_max, std::move(storage)));
  return JsonWithIds{std::move(object), {}};
}

}  // namespace longhaul
