#include "router/text/pre_tokenizer.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "router/text/split_scanners.h"

namespace longhaul {
namespace {

constexpr absl::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kGpt2ShortPattern =
    R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Llama 4 and GPT-4o.
constexpr absl::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct KnownPattern {
  absl::string_view pattern;
  const char* (*scanner)(const char* p, const char* end);
};
constexpr KnownPattern kKnownPatterns[] = {
    {kGpt2Pattern, ScanGpt2},   {kGpt2ShortPattern, ScanGpt2}, {kLlama3Pattern, ScanLlama3},
    {kQwen2Pattern, ScanQwen2}, {R"(\p{N})", ScanDigits},
};

// The values of GGUF's tokenizer.ggml.pre.
struct KnownName {
  absl::string_view name;
  absl::string_view pattern;
  bool digits = false;
  bool nfc = false;
  bool ignore_merges = false;
};
constexpr KnownName kKnownNames[] = {
    {.name = "gpt2", .pattern = kGpt2Pattern},
    {.name = "gpt-2", .pattern = kGpt2Pattern},
    {.name = "phi-2", .pattern = kGpt2Pattern},
    {.name = "mpt", .pattern = kGpt2Pattern},
    {.name = "olmo", .pattern = kGpt2Pattern},
    {.name = "smollm", .pattern = kGpt2Pattern, .digits = true},
    {.name = "starcoder", .pattern = kGpt2Pattern, .digits = true},
    {.name = "refact", .pattern = kGpt2Pattern, .digits = true},
    {.name = "command-r", .pattern = kGpt2Pattern, .digits = true},
    {.name = "codeshell", .pattern = kGpt2Pattern, .digits = true},
    {.name = "llama-bpe", .pattern = kLlama3Pattern, .ignore_merges = true},
    {.name = "llama3", .pattern = kLlama3Pattern, .ignore_merges = true},
    {.name = "llama-v3", .pattern = kLlama3Pattern, .ignore_merges = true},
    {.name = "qwen2", .pattern = kQwen2Pattern, .nfc = true},
    {.name = "deepseek-r1-qwen", .pattern = kQwen2Pattern, .nfc = true},
    {.name = "stablelm2", .pattern = kQwen2Pattern},
    {.name = "gpt-4o", .pattern = kO200kPattern},
    {.name = "llama4", .pattern = kO200kPattern},
};

constexpr size_t kPatternsMax = 32;

}  // namespace

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Make(const TokenizerData& data) {
  if (data.pre_tokenizer_patterns.size() > kPatternsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the pre-tokenizer has ", data.pre_tokenizer_patterns.size(),
                     " patterns; at most ", kPatternsMax, " are supported"));
  }
  auto result = std::make_unique<PreTokenizer>();
  if (data.digits_split_single) result->steps_.push_back({ScanDigits, nullptr});
  for (const std::string& pattern : data.pre_tokenizer_patterns) {
    LH_RETURN_IF_ERROR(result->AddPattern(pattern));
  }
  if (!data.pre_tokenizer.empty()) LH_RETURN_IF_ERROR(result->AddName(data.pre_tokenizer));
  return result;
}

absl::Status PreTokenizer::AddPattern(absl::string_view pattern) {
  for (const KnownPattern& known : kKnownPatterns) {
    if (known.pattern == pattern) {
      steps_.push_back({known.scanner, nullptr});
      return absl::OkStatus();
    }
  }
  LH_ASSIGN_OR_RETURN(auto regex, SplitRegex::Compile(pattern));
  steps_.push_back({nullptr, std::move(regex)});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddName(absl::string_view name) {
  for (const KnownName& known : kKnownNames) {
    if (known.name != name) continue;
    if (known.digits) steps_.push_back({ScanDigits, nullptr});
    implies_nfc_ = known.nfc;
    implies_ignore_merges_ = known.ignore_merges;
    return AddPattern(known.pattern);
  }
  const auto append_name = [](std::string* out, const KnownName& known) {
    absl::StrAppend(out, known.name);
  };
  return absl::UnimplementedError(
      absl::StrCat("unknown pre-tokenizer \"", name, "\"; known are ",
                   absl::StrJoin(kKnownNames, ", ", append_name),
                   ". A model folder with tokenizer.json names its regex itself"));
}

void PreTokenizer::Split(absl::string_view text,
                         absl::FunctionRef<void(absl::string_view)> piece) const {
  SplitFrom(0, text, piece);
}

void PreTokenizer::SplitFrom(size_t step, absl::string_view text,
                             absl::FunctionRef<void(absl::string_view)> piece) const {
  if (text.empty()) return;
  if (step == steps_.size()) return piece(text);
  const bool is_last = step + 1 == steps_.size();
  if (const Scanner scanner = steps_[step].scanner) {
    const char* const end = text.data() + text.size();
    for (const char* p = text.data(); p != end;) {
      const char* const next = scanner(p, end);
      const absl::string_view part(p, static_cast<size_t>(next - p));
      is_last ? piece(part) : SplitFrom(step + 1, part, piece);
      p = next;
    }
    return;
  }
  if (is_last) return steps_[step].regex->Split(text, piece);
  steps_[step].regex->Split(text,
                            [&](absl::string_view part) { SplitFrom(step + 1, part, piece); });
}

}  // namespace longhaul
