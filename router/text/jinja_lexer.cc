#include "router/text/jinja_lexer.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/status.h"
#include "router/text/jinja_unicode.h"

namespace longhaul::jinja {
namespace {

using absl::ascii_isdigit;

bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80) != 0;
}

bool IsAsciiSpace(char c) { return absl::ascii_isspace(static_cast<unsigned char>(c)); }

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) LH_RETURN_IF_ERROR(NextTag());
    Add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool StartsWith(absl::string_view text) const {
    return absl::string_view(source_).substr(at_, text.size()) == text;
  }

  void Add(Token::Kind kind, absl::string_view text) {
    tokens_.push_back({kind, std::string(text), line_});
  }

  void Advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + to, '\n'));
    at_ = to;
  }

  void SkipSpace() {
    const absl::string_view rest = absl::string_view(source_).substr(at_);
    Advance(source_.size() - Strip(rest, "", true, false).size());
  }

  // Text up to the next tag, then that tag.
  absl::Status NextTag() {
    size_t begin = at_;
    while ((begin = source_.find('{', begin)) != std::string::npos) {
      const char next = begin + 1 < source_.size() ? source_[begin + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') break;
      ++begin;
    }
    if (begin == std::string::npos) {
      AddData(absl::string_view(source_).substr(at_));
      Advance(source_.size());
      return absl::OkStatus();
    }
    const char kind = source_[begin + 1];
    const char sign = begin + 2 < source_.size() ? source_[begin + 2] : '\0';
    AddData(TextBefore(begin, kind, sign));
    Advance(begin + 2);
    if (sign == '-' || (sign == '+' && kind != '{')) Advance(at_ + 1);
    switch (kind) {
      case '#':
        return SkipComment();
      case '%':
        return IsRaw() ? ReadRaw() : ReadTag(Token::Kind::kBlockBegin);
      default:
        return ReadTag(Token::Kind::kOutputBegin);
    }
  }

  void AddData(absl::string_view text) {
    if (!text.empty()) Add(Token::Kind::kData, text);
  }

  // The text from at_ to `begin`, where a tag starts, less what its sign and lstrip_blocks remove.
  absl::string_view TextBefore(size_t begin, char kind, char sign) const {
    const absl::string_view text = absl::string_view(source_).substr(at_, begin - at_);
    if (sign == '-') return Strip(text, "", false, true);
    if (sign == '+' || kind == '{') return text;
    const size_t newline = text.rfind('\n');
    const size_t line_start = newline == absl::string_view::npos ? 0 : newline + 1;
    if (line_start == 0 && !line_starting_) return text;
    const bool blank = Strip(text.substr(line_start), "", true, false).empty();
    return blank ? text.substr(0, line_start) : text;
  }

  // After a tag's end: "-" eats white space; without a sign a block or comment eats one newline.
  void TrimAfter(char sign, bool is_output) {
    const size_t end = at_;
    if (sign == '-') {
      SkipSpace();
    } else if (sign != '+' && !is_output && StartsWith("\n")) {
      Advance(at_ + 1);
    }
    line_starting_ = at_ > end && source_[at_ - 1] == '\n';
  }

  absl::Status SkipComment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) return TemplateError(line_, "a comment has no end");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    Advance(end + 2);
    TrimAfter(sign, false);
    return absl::OkStatus();
  }

  bool IsRaw() const {
    size_t i = at_;
    while (i < source_.size() && IsAsciiSpace(source_[i])) ++i;
    if (source_.compare(i, 3, "raw") != 0) return false;
    i += 3;
    while (i < source_.size() && IsAsciiSpace(source_[i])) ++i;
    return source_.compare(i, 2, "%}") == 0 || source_.compare(i, 3, "-%}") == 0;
  }

  absl::Status ReadRaw() {
    const size_t close = source_.find("%}", at_);
    const bool strip = source_[close - 1] == '-';
    Advance(close + 2);
    if (strip) SkipSpace();
    line_starting_ = strip && source_[at_ - 1] == '\n';
    for (size_t begin = source_.find("{%", at_); begin != std::string::npos;
         begin = source_.find("{%", begin + 2)) {
      size_t i = begin + 2;
      const char sign = i < source_.size() ? source_[i] : '\0';
      if (sign == '-' || sign == '+') ++i;
      while (i < source_.size() && IsAsciiSpace(source_[i])) ++i;
      if (source_.compare(i, 6, "endraw") != 0) continue;
      i += 6;
      while (i < source_.size() && IsAsciiSpace(source_[i])) ++i;
      const char end_sign = i < source_.size() ? source_[i] : '\0';
      if (end_sign == '-' || end_sign == '+') ++i;
      if (source_.compare(i, 2, "%}") != 0) continue;
      AddData(TextBefore(begin, '%', sign));
      Advance(i + 2);
      TrimAfter(end_sign, false);
      return absl::OkStatus();
    }
    return TemplateError(line_, "a raw block has no endraw");
  }

  absl::Status ReadTag(Token::Kind begin) {
    const bool is_output = begin == Token::Kind::kOutputBegin;
    const absl::string_view end = is_output ? "}}" : "%}";
    const int first_line = line_;
    Add(begin, "");
    std::string open;  // brackets
    for (;;) {
      SkipSpace();
      if (at_ >= source_.size()) {
        return TemplateError(first_line, absl::StrCat("a tag has no '", end, "'"));
      }
      if (open.empty()) {
        const char c = source_[at_];
        const bool has_sign = c == '-' || (c == '+' && !is_output);
        if (absl::string_view(source_).substr(at_ + (has_sign ? 1 : 0), 2) == end) {
          Add(is_output ? Token::Kind::kOutputEnd : Token::Kind::kBlockEnd, "");
          Advance(at_ + (has_sign ? 3 : 2));
          TrimAfter(has_sign ? c : '\0', is_output);
          return absl::OkStatus();
        }
      }
      LH_RETURN_IF_ERROR(ReadToken(&open));
    }
  }

  absl::Status ReadToken(std::string* open) {
    const char c = source_[at_];
    if (ascii_isdigit(static_cast<unsigned char>(c))) return ReadNumber();
    if (IsNameCharacter(c)) {
      size_t end = at_;
      while (end < source_.size() && IsNameCharacter(source_[end])) ++end;
      Add(Token::Kind::kName, absl::string_view(source_).substr(at_, end - at_));
      Advance(end);
      return absl::OkStatus();
    }
    if (c == '"' || c == '\'') return ReadString(c);
    for (absl::string_view op : {"//", "**", "==", "!=", ">=", "<="}) {
      if (!StartsWith(op)) continue;
      Add(Token::Kind::kOperator, op);
      Advance(at_ + 2);
      return absl::OkStatus();
    }
    if (std::string("+-/*%~[](){}><=.:|,;").find(c) == std::string::npos) {
      return TemplateError(line_, absl::StrCat("unexpected character '", std::string(1, c), "'"));
    }
    if (c == '(' || c == '[' || c == '{') open->push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    if (c == ')' || c == ']' || c == '}') {
      if (open->empty() || open->back() != c) {
        return TemplateError(line_, absl::StrCat("unexpected '", std::string(1, c), "'"));
      }
      open->pop_back();
    }
    Add(Token::Kind::kOperator, std::string(1, c));
    Advance(at_ + 1);
    return absl::OkStatus();
  }

  size_t Digits(size_t from) const {
    size_t end = from;
    while (end < source_.size() && (ascii_isdigit(static_cast<unsigned char>(source_[end])) ||
                                    (source_[end] == '_' && end > from))) {
      ++end;
    }
    return end;
  }

  absl::Status ReadNumber() {
    // The 0 of "x.0.1" is an index, not the start of a fraction.
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    size_t end = Digits(at_);
    bool is_float = false;
    if (!after_dot && end < source_.size() && source_[end] == '.' && Digits(end + 1) > end + 1) {
      end = Digits(end + 1);
      is_float = true;
    }
    if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) {
        ++exponent;
      }
      if (Digits(exponent) > exponent) {
        end = Digits(exponent);
        is_float = true;
      }
    }
    const std::string digits = absl::StrReplaceAll(source_.substr(at_, end - at_), {{"_", ""}});
    double number = 0;
    int64_t integer = 0;
    if (is_float ? !absl::SimpleAtod(digits, &number) : !absl::SimpleAtoi(digits, &integer)) {
      return TemplateError(
          line_, absl::StrCat("the number ", digits.substr(0, 40), " does not fit 64 bits"));
    }
    Add(is_float ? Token::Kind::kFloat : Token::Kind::kInteger, digits);
    Advance(end);
    return absl::OkStatus();
  }

  absl::Status ReadString(char quote) {
    const int first_line = line_;
    std::string text;
    for (size_t i = at_ + 1; i < source_.size();) {
      const char c = source_[i];
      if (c == quote) {
        Add(Token::Kind::kString, text);
        Advance(i + 1);
        return absl::OkStatus();
      }
      if (c != '\\') {
        text.push_back(c);
        ++i;
        continue;
      }
      LH_ASSIGN_OR_RETURN(i, ReadEscape(i + 1, &text));
    }
    return TemplateError(first_line, "a string has no end");
  }

  // Python's escapes; `i` is after the backslash. Returns where the text goes on.
  absl::StatusOr<size_t> ReadEscape(size_t i, std::string* text) const {
    if (i >= source_.size()) return TemplateError(line_, "a string has no end");
    const char c = source_[i];
    static constexpr absl::string_view kSimple = "abfnrtv\\'\"";
    static constexpr absl::string_view kMeaning = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t found = kSimple.find(c); found != absl::string_view::npos) {
      text->push_back(kMeaning[found]);
      return i + 1;
    }
    if (c == '\n') return i + 1;
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t code = 0;
    if (digits > 0) {
      if (!absl::SimpleHexAtoi(absl::string_view(source_).substr(i + 1, digits), &code) ||
          i + 1 + digits > source_.size() || code > 0x10FFFF) {
        return TemplateError(line_, absl::StrCat("a '\\", std::string(1, c), "' escape needs ",
                                                 digits, " hexadecimal digits"));
      }
      AppendUtf8(code, text);
      return i + 1 + digits;
    }
    if (c >= '0' && c <= '7') {
      size_t end = i;
      while (end < i + 3 && end < source_.size() && source_[end] >= '0' && source_[end] <= '7') {
        code = code * 8 + static_cast<uint32_t>(source_[end++] - '0');
      }
      AppendUtf8(code, text);
      return end;
    }
    text->push_back('\\');
    return i;
  }

  const std::string source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // only white space can be before at_ on its line
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  std::string text = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return Lexer(std::move(text)).Run();
}

absl::Status TemplateError(int line, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("chat template, line ", line, ": ", what));
}

}  // namespace longhaul::jinja
