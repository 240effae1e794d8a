// PreTokenizer: cuts a text into the pieces that BPE never merges across, in the steps that
// TokenizerData describes. The splitters of GPT-2, SmolLM, Llama 3 and Qwen2 are hand-written
// (split_scanners.h), recognised by name or by their regex; any other regex runs on PCRE2
// (split_regex.h). Immutable after Make; any thread.
#pragma once

#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/model/tokenizer_data.h"
#include "router/text/split_regex.h"

namespace longhaul {

class PreTokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Make(const TokenizerData& data);

  // Calls `piece` with the pieces of `text` in order; together they are the text.
  void Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> piece) const;

  // What a name from GGUF stands for beside the splitter.
  bool implies_nfc() const { return implies_nfc_; }
  bool implies_ignore_merges() const { return implies_ignore_merges_; }

 private:
  using Scanner = const char* (*)(const char* p, const char* end);
  struct Step {
    Scanner scanner = nullptr;
    std::unique_ptr<SplitRegex> regex;  // when there is no scanner
  };

  absl::Status AddPattern(absl::string_view pattern);
  absl::Status AddName(absl::string_view name);
  void SplitFrom(size_t step, absl::string_view text,
                 absl::FunctionRef<void(absl::string_view)> piece) const;

  std::vector<Step> steps_;
  bool implies_nfc_ = false;
  bool implies_ignore_merges_ = false;
};

}  // namespace longhaul
