// SplitRegex: a pre-tokenizer's regex that has no hand-written scanner, run by PCRE2's JIT.
//
// The patterns are written for Oniguruma (Ruby syntax), as the `tokenizers` library reads them.
// PCRE2 reads some of that syntax in another sense without an error: `&&` in a class is an
// intersection there and two ampersands here, classes nest there, (?m) and \h and \w differ.
// Compile rewrites what has an exact equal (\s, \u1234) and rejects what does not. One difference
// stays: the categories are those of PCRE2 10.42 (Unicode 14), so younger characters count as
// unassigned.
//
// Immutable after Compile; any thread.
#pragma once

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace longhaul {

class SplitRegex {
 public:
  static absl::StatusOr<std::unique_ptr<SplitRegex>> Compile(absl::string_view pattern);
  ~SplitRegex();

  // Cuts `text` into the matches and the gaps between them, in order and without loss. A stretch of
  // bytes that are not UTF-8 is a gap. A match may use a bounded number of steps and 1 MiB of
  // stack; where it needs more (a hostile text on a pattern that backtracks), the stretch up to the
  // end of the next word becomes one piece, and after eight of these the rest is cut into words
  // without the regex: the tokens still stand for the same text.
  void Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> piece) const;

 private:
  struct Code;
  struct Match;
  explicit SplitRegex(std::unique_ptr<Code> code);
  void SplitValid(absl::string_view text, Match& match,
                  absl::FunctionRef<void(absl::string_view)> piece) const;

  std::unique_ptr<Code> code_;
};

}  // namespace longhaul
