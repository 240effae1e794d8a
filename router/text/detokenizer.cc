#include "router/text/detokenizer.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/utf8.h"

namespace longhaul {

Detokenizer::Detokenizer(DetokenizerOptions options)
    : include_stop_in_output_(options.include_stop_in_output),
      tokens_before_stop_(options.tokens_before_stop),
      strip_leading_space_(options.strip_leading_space) {
  for (std::string& stop : options.stop) {
    LH_CHECK(!stop.empty(), "an empty stop string would stop everything");
    LH_CHECK(IsUtf8(stop), "a match of anything else could split a character");
    Matcher matcher;
    matcher.fallback.assign(stop.size() + 1, 0);
    for (size_t i = 1, matched = 0; i < stop.size(); ++i) {
      while (matched > 0 && stop[i] != stop[matched]) matched = matcher.fallback[matched];
      if (stop[i] == stop[matched]) ++matched;
      matcher.fallback[i + 1] = matched;
    }
    matcher.pattern = std::move(stop);
    matchers_.push_back(std::move(matcher));
  }
}

Detokenizer::Result Detokenizer::Push(absl::string_view token_bytes) {
  if (stopped_) return {"", true, stop_string_};
  const bool may_stop = tokens_before_stop_ <= 0;
  --tokens_before_stop_;
  tail_.append(token_bytes.data(), token_bytes.size());
  if (may_stop) {
    Decode(false);
    return Release(false);
  }
  // The text so far is out of the matchers' sight.
  std::vector<Matcher> resting = std::exchange(matchers_, {});
  Decode(false);
  matchers_ = std::move(resting);
  return Release(false);
}

Detokenizer::Result Detokenizer::Finish() {
  if (stopped_) return {"", true, stop_string_};
  Decode(true);
  return Release(true);
}

void Detokenizer::Decode(bool last) {
  absl::string_view rest = tail_;
  while (!rest.empty() && !stopped_) {
    const Utf8Step step = ReadUtf8(rest);
    if (step.kind == Utf8Step::Kind::kIncomplete && !last) break;
    absl::string_view character = rest.substr(0, step.bytes);
    rest.remove_prefix(step.bytes);
    if (step.kind != Utf8Step::Kind::kCharacter) character = kUtf8Replacement;
    if (std::exchange(strip_leading_space_, false) && character == " ") continue;
    stopped_ = Append(character);
  }
  tail_.erase(0, tail_.size() - rest.size());
}

bool Detokenizer::Append(absl::string_view character) {
  held_.append(character.data(), character.size());
  const Matcher* longest = nullptr;
  for (Matcher& matcher : matchers_) {
    for (char byte : character) {
      while (matcher.matched > 0 && matcher.pattern[matcher.matched] != byte) {
        matcher.matched = matcher.fallback[matcher.matched];
      }
      if (matcher.pattern[matcher.matched] == byte) ++matcher.matched;
    }
    if (matcher.matched == matcher.pattern.size() &&
        (longest == nullptr || longest->pattern.size() < matcher.pattern.size())) {
      longest = &matcher;
    }
  }
  if (longest == nullptr) return false;
  stop_string_ = longest->pattern;
  if (!include_stop_in_output_) held_.resize(held_.size() - stop_string_.size());
  return true;
}

Detokenizer::Result Detokenizer::Release(bool all) {
  size_t keep = 0;
  if (!all && !stopped_) {
    for (const Matcher& matcher : matchers_) keep = std::max(keep, matcher.matched);
  }
  Result result;
  result.stopped = stopped_;
  result.stop_string = stop_string_;
  result.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return result;
}

}  // namespace longhaul
