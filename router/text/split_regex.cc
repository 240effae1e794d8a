#define PCRE2_CODE_UNIT_WIDTH 8
#include "router/text/split_regex.h"

#include <pcre2.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "router/text/unicode_classes.h"

namespace longhaul {
namespace {

constexpr size_t kPatternBytesMax = 16384;
constexpr uint32_t kMatchSteps = 1000000;
constexpr int kMatchesGivenUpMax = 8;  // per text; then the rest is cut into words
constexpr size_t kStackBytesStart = 32 * 1024;
constexpr size_t kStackBytesMax = 1024 * 1024;

// White_Space; PCRE2's own \s also takes U+180E.
constexpr absl::string_view kSpaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

absl::Status Unsupported(absl::string_view pattern, size_t at, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("pre-tokenizer pattern \"", pattern, "\", byte ", at, ": ", why));
}

// Rewrites Oniguruma's syntax into PCRE2's.
class Translator {
 public:
  explicit Translator(absl::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        LH_RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        LH_RETURN_IF_ERROR(InClass(c));
      } else {
        LH_RETURN_IF_ERROR(OutsideClass(c));
      }
    }
    return std::move(out_);
  }

 private:
  absl::string_view Rest() const { return pattern_.substr(at_); }

  void Copy(size_t bytes) {
    absl::StrAppend(&out_, pattern_.substr(at_, bytes));
    at_ += bytes;
  }

  absl::Status Escape() {
    if (at_ + 1 == pattern_.size()) return Unsupported(pattern_, at_, "ends in a backslash");
    const char c = pattern_[at_ + 1];
    if (c == 's') {
      absl::StrAppend(&out_, in_class_ ? "" : "[", kSpaces, in_class_ ? "" : "]");
      at_ += 2;
      return absl::OkStatus();
    }
    if (c == 'S' && !in_class_) {
      absl::StrAppend(&out_, "[^", kSpaces, "]");
      at_ += 2;
      return absl::OkStatus();
    }
    if (c == 'u') {
      const absl::string_view digits = Rest().substr(2, 4);
      bool hex = digits.size() == 4;
      for (char digit : digits) hex = hex && absl::ascii_isxdigit(digit);
      if (!hex) return Unsupported(pattern_, at_, "\\u needs four hexadecimal digits");
      absl::StrAppend(&out_, "\\x{", digits, "}");
      at_ += 6;
      return absl::OkStatus();
    }
    if (absl::ascii_isalnum(c) && !absl::StrContains("rntfaedDpPx", c)) {
      return Unsupported(
          pattern_, at_,
          absl::StrCat("\\", pattern_.substr(at_ + 1, 1), in_class_ ? " in a class" : "",
                       " is not supported: regex dialects differ in its meaning"));
    }
    const size_t close = Rest().find('}');
    const bool has_braces = at_ + 2 < pattern_.size() && pattern_[at_ + 2] == '{' &&
                            (c == 'p' || c == 'P' || c == 'x') && close != Rest().npos;
    Copy(has_braces ? close + 1 : 2);
    return absl::OkStatus();
  }

  absl::Status InClass(char c) {
    if (absl::StartsWith(Rest(), "&&")) {
      return Unsupported(pattern_, at_, "the class intersection && is not supported");
    }
    if (c == '[') return Unsupported(pattern_, at_, "a class inside a class is not supported");
    if (c == ']') in_class_ = false;
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status OutsideClass(char c) {
    if (c == '[') {
      in_class_ = true;
      Copy(absl::StartsWith(Rest(), "[^") ? 2 : 1);
      if (absl::StartsWith(Rest(), "]")) {
        return Unsupported(pattern_, at_, "a class that begins with ] is not supported");
      }
      return absl::OkStatus();
    }
    if (absl::StartsWith(Rest(), "(?") || absl::StartsWith(Rest(), "(*")) return Group();
    if (absl::StartsWith(Rest(), "}+")) {
      return Unsupported(pattern_, at_, "a + after {..} is not supported: regex dialects differ");
    }
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status Group() {
    for (absl::string_view group : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)"}) {
      if (absl::StartsWith(Rest(), group)) {
        Copy(group.size());
        return absl::OkStatus();
      }
    }
    return Unsupported(pattern_, at_,
                       "this kind of group is not supported; use (?:, (?=, (?!, (?<=, (?<!, (?>, "
                       "(?i: or (?i)");
  }

  const absl::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

// Past the end of the word at `at`: the spaces that come first and what follows up to a space.
size_t PastWord(absl::string_view text, size_t at) {
  const char* const end = text.data() + text.size();
  const char* p = text.data() + at;
  bool in_word = false;
  while (p != end) {
    const DecodedChar c = DecodeUtf8(p, end);
    const bool space = (UnicodeClasses::Get().BitsOf(c.code_point) & kSpaceBit) != 0;
    if (space && in_word) break;
    in_word = in_word || !space;
    p += c.bytes;
  }
  return static_cast<size_t>(p - text.data());
}

}  // namespace

struct SplitRegex::Code {
  ~Code() { pcre2_code_free(code); }
  pcre2_code* code = nullptr;
};

// What one call of Split needs: the code itself is shared by all threads.
struct SplitRegex::Match {
  explicit Match(const pcre2_code* code)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kStackBytesStart, kStackBytesMax, nullptr)) {
    LH_CHECK(data != nullptr && context != nullptr && stack != nullptr,
             "out of memory for a regex match");
    pcre2_set_match_limit(context, kMatchSteps);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  Match(const Match&) = delete;
  Match& operator=(const Match&) = delete;
  ~Match() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
  int given_up = 0;
};

SplitRegex::SplitRegex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
SplitRegex::~SplitRegex() = default;

absl::StatusOr<std::unique_ptr<SplitRegex>> SplitRegex::Compile(absl::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("pre-tokenizer pattern of ", pattern.size(),
                                                   " bytes; at most ", kPatternBytesMax,
                                                   " are supported"));
  }
  LH_ASSIGN_OR_RETURN(const std::string translated, Translator(pattern).Run());
  int error = 0;
  PCRE2_SIZE error_at = 0;
  auto code = std::make_unique<Code>();
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &error_at, context);
  pcre2_compile_context_free(context);
  if (code->code == nullptr) {
    PCRE2_UCHAR message[256] = {};
    pcre2_get_error_message(error, message, sizeof(message));
    return absl::InvalidArgumentError(absl::StrCat("pre-tokenizer pattern \"", pattern, "\" (as \"",
                                                   translated, "\"), byte ", error_at, ": ",
                                                   reinterpret_cast<const char*>(message)));
  }
  // Without a JIT for this processor the interpreter gives the same matches, only slower.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  return std::unique_ptr<SplitRegex>(new SplitRegex(std::move(code)));
}

void SplitRegex::Split(absl::string_view text,
                       absl::FunctionRef<void(absl::string_view)> piece) const {
  if (text.empty()) return;
  Match match(code_->code);
  // PCRE2 reads only valid UTF-8, and checking it again for every match would be quadratic: cut the
  // text into valid and invalid stretches once.
  const char* const end = text.data() + text.size();
  const char* begin = text.data();
  bool valid = DecodeUtf8(begin, end).valid;
  for (const char* p = begin; p != end;) {
    const DecodedChar c = DecodeUtf8(p, end);
    if (c.valid != valid) {
      const absl::string_view stretch(begin, static_cast<size_t>(p - begin));
      valid ? SplitValid(stretch, match, piece) : piece(stretch);
      begin = p;
      valid = c.valid;
    }
    p += c.bytes;
  }
  const absl::string_view stretch(begin, static_cast<size_t>(end - begin));
  valid ? SplitValid(stretch, match, piece) : piece(stretch);
}

void SplitRegex::SplitValid(absl::string_view text, Match& match,
                            absl::FunctionRef<void(absl::string_view)> piece) const {
  size_t done = 0;
  while (done < text.size()) {
    const bool try_match = match.given_up < kMatchesGivenUpMax;
    const int rc = try_match ? pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                                           text.size(), done, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                                           match.data, match.context)
                             : PCRE2_ERROR_MATCHLIMIT;
    if (rc == PCRE2_ERROR_NOMATCH) {
      piece(text.substr(done));
      return;
    }
    if (rc < 0) {
      const size_t past = PastWord(text, done);
      piece(text.substr(done, past - done));
      done = past;
      if (try_match) ++match.given_up;
      continue;
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.data);
    if (bounds[0] > done) piece(text.substr(done, bounds[0] - done));
    piece(text.substr(bounds[0], bounds[1] - bounds[0]));
    done = bounds[1];
  }
}

}  // namespace longhaul
