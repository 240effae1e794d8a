// Filters that make text, numbers and JSON.
#include <algorithm>
#include <cmath>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/base/utf8.h"
#include "router/text/jinja_filters.h"
#include "router/text/jinja_unicode.h"

namespace longhaul::jinja {
namespace {

Value Upper(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "upper");
  return rt.Text(jinja::Upper(rt.ToText(input)));
}

Value Lower(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "lower");
  return rt.Text(jinja::Lower(rt.ToText(input)));
}

Value Capitalize(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "capitalize");
  return rt.Text(jinja::Capitalize(rt.ToText(input)));
}

// Unlike str.title, Jinja's words start only after space, hyphen and opening brackets.
Value Title(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "title");
  std::string out;
  std::string word;
  auto flush = [&] {
    out += jinja::Capitalize(word);
    word.clear();
  };
  const std::string text = rt.ToText(input);
  EachCharacter(text, [&](absl::string_view character) {
    const char32_t c = ReadUtf8(character).code_point;
    if (IsSpace(c) || (c < 0x80 && absl::string_view("-({[<").find(static_cast<char>(c)) !=
                                       absl::string_view::npos)) {
      flush();
      absl::StrAppend(&out, character);
    } else {
      absl::StrAppend(&word, character);
    }
  });
  flush();
  return rt.Text(std::move(out));
}

Value Trim(Runtime& rt, const Value& input, Arguments& args) {
  const Value characters = args.Or(0, "chars", Value::None());
  args.Finish(rt, "trim");
  const std::string text = rt.ToText(input);
  std::string trimmed(Strip(text, characters.is_none() ? "" : rt.ToText(characters), true, true));
  return input.is_safe_string() ? rt.SafeText(std::move(trimmed)) : rt.Text(std::move(trimmed));
}

Value String(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "string");
  return input.is_string() ? input : rt.Text(rt.ToText(input));
}

Value Replace(Runtime& rt, const Value& input, Arguments& args) {
  const Value text = rt.Text(rt.ToText(input));
  Value method = rt.ok() ? BoundMethod(text, "replace") : Value();
  if (method.is_undefined()) return Value();
  // Old and new may be anything that has a text.
  for (size_t i = 0; i < std::min<size_t>(2, args.positional.size()); ++i) {
    args.positional[i] = rt.Text(rt.ToText(args.positional[i]));
  }
  return method.AsCallable().Call(rt, args);
}

Value Indent(Runtime& rt, const Value& input, Arguments& args) {
  const Value width = args.Or(0, "width", Value::Int(4));
  const bool first = rt.Truthy(args.Or(1, "first", Value::Bool(false)));
  const bool blank = rt.Truthy(args.Or(2, "blank", Value::Bool(false)));
  args.Finish(rt, "indent");
  std::string indentation;
  if (width.is_string()) {
    indentation = width.AsString();
  } else if (width.is_integral() && width.AsInt() <= 1000) {
    indentation.assign(static_cast<size_t>(std::max<int64_t>(0, width.AsInt())), ' ');
  } else {
    return rt.Fail("indent() needs a text or a number up to 1000 as its width");
  }
  // Jinja adds a newline before it splits, so that a last empty line counts.
  const std::string text = rt.ToText(input);
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (!rt.Charge(static_cast<int64_t>(lines.size() * indentation.size()))) return Value();
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.push_back('\n');
    const bool indent_it = i == 0 ? first : (blank || !lines[i].empty());
    absl::StrAppend(&out, indent_it ? indentation : "", lines[i]);
  }
  return rt.Text(std::move(out));
}

Value Truncate(Runtime& rt, const Value& input, Arguments& args) {
  const Value length = args.Or(0, "length", Value::Int(255));
  const bool kill_words = rt.Truthy(args.Or(1, "killwords", Value::Bool(false)));
  const std::string end = rt.ToText(args.Or(2, "end", Value::String("...")));
  const Value leeway = args.Or(3, "leeway", Value::Int(5));
  args.Finish(rt, "truncate");
  if (!length.is_integral() || !leeway.is_integral()) return rt.Fail("truncate() needs integers");
  const std::string text = rt.ToText(input);
  const int64_t end_size = CountUtf8(end);
  if (length.AsInt() < end_size) {
    return rt.Fail(absl::StrCat("truncate() to ", length.AsInt(), " leaves no room for the end"));
  }
  if (!rt.Charge(static_cast<int64_t>(text.size()) * 16)) return Value();
  const std::vector<absl::string_view> characters = Characters(text);
  const int64_t size = static_cast<int64_t>(characters.size());
  if (size - length.AsInt() <= leeway.AsInt()) return rt.Text(text);
  std::string cut;
  for (int64_t i = 0; i < length.AsInt() - end_size && i < size; ++i) {
    absl::StrAppend(&cut, characters[i]);
  }
  if (!kill_words) cut = cut.substr(0, cut.rfind(' '));
  return rt.Text(cut + end);
}

Value WordCount(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "wordcount");
  const std::string text = rt.ToText(input);
  int64_t words = 0;
  bool in_word = false;
  EachCharacter(text, [&](absl::string_view character) {
    const char32_t c = ReadUtf8(character).code_point;
    const bool is_word = IsAlpha(c) || IsDigit(c) || c == '_';
    if (is_word && !in_word) ++words;
    in_word = is_word;
  });
  return Value::Int(words);
}

Value Center(Runtime& rt, const Value& input, Arguments& args) {
  const Value width = args.Or(0, "width", Value::Int(80));
  args.Finish(rt, "center");
  const std::string text = rt.ToText(input);
  if (!width.is_integral() || width.AsInt() > 10000) {
    return rt.Fail("center() needs a width up to 10000");
  }
  const int64_t room = width.AsInt() - CountUtf8(text);
  if (room <= 0) return rt.Text(text);
  const int64_t left = room / 2 + (room & width.AsInt() & 1);
  return rt.Text(absl::StrCat(std::string(static_cast<size_t>(left), ' '), text,
                              std::string(static_cast<size_t>(room - left), ' ')));
}

Value Format(Runtime& rt, const Value& input, Arguments& args) {
  if (!args.named.empty()) return rt.Fail("format() with keyword arguments is not supported");
  return PercentFormat(rt, rt.ToText(input), args.positional);
}

Value ToJsonFilter(Runtime& rt, const Value& input, Arguments& args) {
  JsonStyle style;
  style.ascii = rt.Truthy(args.Or(0, "ensure_ascii", Value::Bool(false)));
  const Value indent = args.Or(1, "indent", Value::None());
  const Value separators = args.Or(2, "separators", Value::None());
  style.sort_keys = rt.Truthy(args.Or(3, "sort_keys", Value::Bool(false)));
  args.Finish(rt, "tojson");
  if (indent.is_integral() && indent.AsInt() <= 100) {
    style.indent = std::max<int64_t>(0, indent.AsInt());
  } else if (!indent.is_none()) {
    return rt.Fail("tojson() needs an indent up to 100 or none");
  }
  if (!separators.is_none()) {
    if (!separators.is_list() || separators.AsList().size() != 2 ||
        !separators.AsList()[0].is_string() || !separators.AsList()[1].is_string()) {
      return rt.Fail("tojson() needs two texts as its separators");
    }
    style.item_separator = separators.AsList()[0].AsString();
    style.key_separator = separators.AsList()[1].AsString();
  }
  return rt.Text(ToJson(rt, input, style));
}

Value Int(Runtime& rt, const Value& input, Arguments& args) {
  const Value fallback = args.Or(0, "default", Value::Int(0));
  const Value base = args.Or(1, "base", Value::Int(10));
  args.Finish(rt, "int");
  if (input.is_undefined()) return rt.FailUndefined(input);
  if (input.is_integral()) return Value::Int(input.AsInt());
  double number = 0;
  if (input.is_string()) {
    if (!base.is_integral() || base.AsInt() != 10) return rt.Fail("int() supports base 10 only");
    const std::string text =
        absl::StrReplaceAll(Strip(input.AsString(), "", true, true), {{"_", ""}});
    int64_t integer = 0;
    if (absl::SimpleAtoi(text, &integer)) return Value::Int(integer);
    if (!absl::SimpleAtod(text, &number)) return fallback;
  } else if (input.kind() == Kind::kFloat) {
    number = input.AsFloat();
  } else {
    return fallback;
  }
  if (!(std::abs(number) < 9e18)) return fallback;
  return Value::Int(static_cast<int64_t>(number));
}

Value Float(Runtime& rt, const Value& input, Arguments& args) {
  const Value fallback = args.Or(0, "default", Value::Float(0));
  args.Finish(rt, "float");
  if (input.is_undefined()) return rt.FailUndefined(input);
  if (input.is_number()) return Value::Float(input.AsFloat());
  double number = 0;
  if (input.is_string() && absl::SimpleAtod(Strip(input.AsString(), "", true, true), &number)) {
    return Value::Float(number);
  }
  return fallback;
}

Value Abs(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "abs");
  if (input.is_integral()) {
    return input.AsInt() < 0 ? rt.Arithmetic(Runtime::Operator::kSub, Value::Int(0), input)
                             : Value::Int(input.AsInt());
  }
  if (input.kind() == Kind::kFloat) return Value::Float(std::abs(input.AsFloat()));
  if (input.is_undefined()) return rt.FailUndefined(input);
  return rt.Fail(absl::StrCat("bad operand type for abs(): '", TypeName(input), "'"));
}

Value Round(Runtime& rt, const Value& input, Arguments& args) {
  const Value precision = args.Or(0, "precision", Value::Int(0));
  const std::string method = rt.ToText(args.Or(1, "method", Value::String("common")));
  args.Finish(rt, "round");
  if (!input.is_number() || !precision.is_integral() || std::abs(precision.AsInt()) > 15) {
    return rt.Fail("round() needs a number and a precision from -15 to 15");
  }
  const double scale = std::pow(10.0, static_cast<double>(precision.AsInt()));
  const double scaled = input.AsFloat() * scale;
  // nearbyint rounds halves to even, as Python does.
  const double rounded = method == "ceil"    ? std::ceil(scaled)
                         : method == "floor" ? std::floor(scaled)
                                             : std::nearbyint(scaled);
  if (input.is_integral() && method == "common") return Value::Int(static_cast<int64_t>(rounded));
  return Value::Float(rounded / scale);
}

Value Safe(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "safe");
  return rt.SafeText(rt.ToText(input));
}

}  // namespace

FilterFunction FindTextFilter(absl::string_view name) {
  static const auto* const kFilters = new absl::flat_hash_map<absl::string_view, FilterFunction>{
      {"abs", Abs},         {"capitalize", Capitalize}, {"center", Center}, {"float", Float},
      {"format", Format},   {"indent", Indent},         {"int", Int},       {"lower", Lower},
      {"replace", Replace}, {"round", Round},           {"safe", Safe},     {"string", String},
      {"title", Title},     {"tojson", ToJsonFilter},   {"trim", Trim},     {"truncate", Truncate},
      {"upper", Upper},     {"wordcount", WordCount}};
  auto it = kFilters->find(name);
  return it == kFilters->end() ? nullptr : it->second;
}

}  // namespace longhaul::jinja
