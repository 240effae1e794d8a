// Turns the bytes of one stream's tokens into text, token by token: never splits a character, and
// holds back what may be the beginning of a stop string until it is known not to be one. One per
// choice of a request; not thread-safe. Linear in the bytes pushed times the number of stop
// strings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace longhaul {

struct DetokenizerOptions {
  std::vector<std::string> stop;        // UTF-8, none empty
  bool include_stop_in_output = false;  // the text ends with the stop string rather than before it
  bool strip_leading_space = false;     // SentencePiece: the text's first space is the model's own
  // The first tokens, which a client's min_tokens protects: a stop string in them does not count.
  int64_t tokens_before_stop = 0;
};

class Detokenizer {
 public:
  struct Result {
    std::string text;         // to send now: whole characters, valid UTF-8
    bool stopped = false;     // a stop string ended the text; nothing comes after it
    std::string stop_string;  // the one that did
  };

  explicit Detokenizer(DetokenizerOptions options);

  // `token_bytes` may be empty (a control token that is not shown). The stop string that ends first
  // wins; of several that end together the longest. After a stop the result is empty.
  Result Push(absl::string_view token_bytes);
  // No token follows: what was held back is text after all, and an unfinished character is U+FFFD.
  Result Finish();

 private:
  // A Knuth-Morris-Pratt matcher of one stop string.
  struct Matcher {
    std::string pattern;
    std::vector<size_t> fallback;  // [matched bytes] -> how many still match if the next does not
    size_t matched = 0;            // longest prefix of pattern that the text ends with
  };

  // Appends the whole characters of tail_ to held_, watching for stop strings.
  void Decode(bool last);
  // Returns whether a stop string ends with this character.
  bool Append(absl::string_view character);
  Result Release(bool all);

  const bool include_stop_in_output_;
  int64_t tokens_before_stop_;
  bool strip_leading_space_;
  std::vector<Matcher> matchers_;
  std::string tail_;  // bytes of an unfinished character
  std::string held_;  // text not yet given out
  bool stopped_ = false;
  std::string stop_string_;
};

}  // namespace longhaul
