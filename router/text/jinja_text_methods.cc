#include "router/text/jinja_text_methods.h"

#include <algorithm>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/utf8.h"
#include "router/text/jinja_unicode.h"

namespace longhaul::jinja {
namespace {

using absl::string_view;

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// A text argument; fails for anything else.
std::string TextArgument(Runtime& rt, const Value& value, string_view method) {
  if (value.is_string()) return value.AsString();
  rt.Fail(absl::StrCat(method, "() needs a str, not ", TypeName(value)));
  return "";
}

int64_t CountArgument(Runtime& rt, const Value& value, string_view method) {
  if (value.is_integral()) return value.AsInt() < 0 ? kNoLimit : value.AsInt();
  rt.Fail(absl::StrCat(method, "() needs an integer, not ", TypeName(value)));
  return 0;
}

Value StripSides(Runtime& rt, const Value& self, Arguments& args, bool left, bool right) {
  const Value characters = args.Or(0, "chars", Value::None());
  args.Finish(rt, "strip");
  // strip('') strips nothing, strip(None) white space.
  if (characters.is_string() && characters.AsString().empty()) return self;
  const std::string set = characters.is_none() ? "" : TextArgument(rt, characters, "strip");
  return rt.Text(std::string(Strip(self.AsString(), set, left, right)));
}
Value StripBoth(Runtime& rt, const Value& self, Arguments& args) {
  return StripSides(rt, self, args, true, true);
}
Value StripLeft(Runtime& rt, const Value& self, Arguments& args) {
  return StripSides(rt, self, args, true, false);
}
Value StripRight(Runtime& rt, const Value& self, Arguments& args) {
  return StripSides(rt, self, args, false, true);
}

std::vector<string_view> SplitSpace(string_view text, int64_t splits, bool from_right) {
  std::vector<string_view> parts;
  for (;;) {
    text = Strip(text, "", !from_right, from_right);
    if (text.empty()) break;
    if (splits-- == 0) {
      parts.push_back(text);
      break;
    }
    size_t end = from_right ? text.size() : 0;
    if (from_right) {
      while (end > 0) {
        size_t begin = end - 1;
        while (begin > 0 && (text[begin] & 0xC0) == 0x80) --begin;
        if (IsSpace(ReadUtf8(text.substr(begin)).code_point)) break;
        end = begin;
      }
      parts.push_back(text.substr(end));
      text = text.substr(0, end);
    } else {
      while (end < text.size()) {
        const Utf8Step step = ReadUtf8(text.substr(end));
        if (IsSpace(step.code_point)) break;
        end += step.bytes;
      }
      parts.push_back(text.substr(0, end));
      text = text.substr(end);
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<string_view> SplitAt(string_view text, string_view separator, int64_t splits,
                                 bool from_right) {
  std::vector<string_view> parts;
  for (; splits > 0; --splits) {
    const size_t found = from_right ? text.rfind(separator) : text.find(separator);
    if (found == string_view::npos) break;
    parts.push_back(from_right ? text.substr(found + separator.size()) : text.substr(0, found));
    text = from_right ? text.substr(0, found) : text.substr(found + separator.size());
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

Value TextList(Runtime& rt, const std::vector<string_view>& parts, Kind kind = Kind::kList) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (string_view part : parts) {
    items.push_back(rt.Text(std::string(part)));
    if (!rt.ok()) return Value();
  }
  return rt.List(std::move(items), kind);
}

Value SplitFrom(Runtime& rt, const Value& self, Arguments& args, bool from_right) {
  const Value separator = args.Or(0, "sep", Value::None());
  const int64_t splits = CountArgument(rt, args.Or(1, "maxsplit", Value::Int(-1)), "split");
  args.Finish(rt, "split");
  if (!rt.Charge(static_cast<int64_t>(self.AsString().size()) * 4)) return Value();
  if (separator.is_none()) return TextList(rt, SplitSpace(self.AsString(), splits, from_right));
  const std::string text = TextArgument(rt, separator, "split");
  if (text.empty()) return rt.Fail("empty separator");
  return TextList(rt, SplitAt(self.AsString(), text, splits, from_right));
}
Value Split(Runtime& rt, const Value& self, Arguments& args) {
  return SplitFrom(rt, self, args, false);
}
Value SplitRight(Runtime& rt, const Value& self, Arguments& args) {
  return SplitFrom(rt, self, args, true);
}

Value PartitionFrom(Runtime& rt, const Value& self, Arguments& args, bool from_right) {
  const std::string separator = TextArgument(rt, args.Or(0, "sep", Value()), "partition");
  args.Finish(rt, "partition");
  if (!rt.ok()) return Value();
  if (separator.empty()) return rt.Fail("empty separator");
  const string_view text = self.AsString();
  const size_t found = from_right ? text.rfind(separator) : text.find(separator);
  if (found == string_view::npos) {
    return from_right ? TextList(rt, {"", "", text}, Kind::kTuple)
                      : TextList(rt, {text, "", ""}, Kind::kTuple);
  }
  return TextList(rt, {text.substr(0, found), separator, text.substr(found + separator.size())},
                  Kind::kTuple);
}
Value Partition(Runtime& rt, const Value& self, Arguments& args) {
  return PartitionFrom(rt, self, args, false);
}
Value PartitionRight(Runtime& rt, const Value& self, Arguments& args) {
  return PartitionFrom(rt, self, args, true);
}

Value SplitLines(Runtime& rt, const Value& self, Arguments& args) {
  const bool keep = rt.Truthy(args.Or(0, "keepends", Value::Bool(false)));
  args.Finish(rt, "splitlines");
  const string_view text = self.AsString();
  if (!rt.Charge(static_cast<int64_t>(text.size()) * 4)) return Value();
  std::vector<string_view> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = ReadUtf8(text.substr(i));
    const char32_t c = step.code_point;
    size_t next = i + step.bytes;
    const bool ends =
        (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (ends) {
      if (c == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.push_back(text.substr(begin, (keep ? next : i) - begin));
      begin = next;
    }
    i = next;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return TextList(rt, lines);
}

Value Affix(Runtime& rt, const Value& self, Arguments& args, bool prefix) {
  const Value wanted = args.Or(0, "prefix", Value());
  const Value start = args.Or(1, "start", Value::None());
  const Value stop = args.Or(2, "end", Value::None());
  args.Finish(rt, prefix ? "startswith" : "endswith");
  Value text = self;
  if (!start.is_none() || !stop.is_none()) text = rt.Slice(self, start, stop, Value::None());
  if (!rt.ok()) return Value();
  auto has = [&](const Value& affix) {
    const std::string part = TextArgument(rt, affix, prefix ? "startswith" : "endswith");
    return prefix ? absl::StartsWith(text.AsString(), part) : absl::EndsWith(text.AsString(), part);
  };
  if (wanted.kind() != Kind::kTuple) return Value::Bool(has(wanted));
  bool any = false;
  for (const Value& affix : wanted.AsList()) any = any || has(affix);
  return Value::Bool(any);
}
Value StartsWith(Runtime& rt, const Value& self, Arguments& args) {
  return Affix(rt, self, args, true);
}
Value EndsWith(Runtime& rt, const Value& self, Arguments& args) {
  return Affix(rt, self, args, false);
}

Value RemoveAffix(Runtime& rt, const Value& self, Arguments& args, bool prefix) {
  const std::string affix = TextArgument(rt, args.Or(0, "prefix", Value()), "removeprefix");
  args.Finish(rt, "removeprefix");
  string_view text = self.AsString();
  if (prefix && absl::StartsWith(text, affix)) text.remove_prefix(affix.size());
  if (!prefix && absl::EndsWith(text, affix)) text.remove_suffix(affix.size());
  return rt.Text(std::string(text));
}
Value RemovePrefix(Runtime& rt, const Value& self, Arguments& args) {
  return RemoveAffix(rt, self, args, true);
}
Value RemoveSuffix(Runtime& rt, const Value& self, Arguments& args) {
  return RemoveAffix(rt, self, args, false);
}

Value Replace(Runtime& rt, const Value& self, Arguments& args) {
  const std::string from = TextArgument(rt, args.Or(0, "old", Value()), "replace");
  const std::string to = TextArgument(rt, args.Or(1, "new", Value()), "replace");
  const Value count = args.Or(2, "count", Value::Int(-1));
  int64_t left = count.is_none() ? kNoLimit : CountArgument(rt, count, "replace");
  args.Finish(rt, "replace");
  const string_view text = self.AsString();
  if (!rt.Charge(static_cast<int64_t>(text.size()))) return Value();
  std::string out;
  if (from.empty()) {
    // Python puts the new text before each character and at the end.
    EachCharacter(text, [&](string_view character) {
      if (left-- > 0 && rt.Charge(static_cast<int64_t>(to.size()))) out += to;
      absl::StrAppend(&out, character);
    });
    if (left > 0) out += to;
    return rt.Text(std::move(out));
  }
  size_t at = 0;
  for (size_t found; left > 0 && (found = text.find(from, at)) != string_view::npos; --left) {
    absl::StrAppend(&out, text.substr(at, found - at), to);
    at = found + from.size();
    if (!rt.Charge(static_cast<int64_t>(to.size()))) return Value();
  }
  absl::StrAppend(&out, text.substr(at));
  return rt.Text(std::move(out));
}

Value Upper(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "upper");
  return rt.Text(jinja::Upper(self.AsString()));
}
Value Lower(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "lower");
  return rt.Text(jinja::Lower(self.AsString()));
}
Value Title(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "title");
  return rt.Text(jinja::Title(self.AsString()));
}
Value Capitalize(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "capitalize");
  return rt.Text(jinja::Capitalize(self.AsString()));
}

Value Join(Runtime& rt, const Value& self, Arguments& args) {
  const Value items = args.Or(0, "iterable", Value());
  args.Finish(rt, "join");
  std::string out;
  bool first = true;
  for (const Value& item : rt.Iterate(items)) {
    const std::string text = TextArgument(rt, item, "join");
    if (!rt.Charge(static_cast<int64_t>(text.size() + self.AsString().size()))) return Value();
    absl::StrAppend(&out, first ? "" : self.AsString(), text);
    first = false;
  }
  return rt.Text(std::move(out));
}

Value FindFrom(Runtime& rt, const Value& self, Arguments& args, bool from_right, bool must) {
  const std::string wanted = TextArgument(rt, args.Or(0, "sub", Value()), "find");
  args.Finish(rt, "find");
  const string_view text = self.AsString();
  if (!rt.Charge(static_cast<int64_t>(text.size()))) return Value();
  const size_t found = from_right ? text.rfind(wanted) : text.find(wanted);
  if (found == string_view::npos) {
    return must ? rt.Fail("substring not found") : Value::Int(-1);
  }
  return Value::Int(CountUtf8(text.substr(0, found)));
}
Value Find(Runtime& rt, const Value& self, Arguments& args) {
  return FindFrom(rt, self, args, false, false);
}
Value FindRight(Runtime& rt, const Value& self, Arguments& args) {
  return FindFrom(rt, self, args, true, false);
}
Value Index(Runtime& rt, const Value& self, Arguments& args) {
  return FindFrom(rt, self, args, false, true);
}

Value Count(Runtime& rt, const Value& self, Arguments& args) {
  const std::string wanted = TextArgument(rt, args.Or(0, "sub", Value()), "count");
  args.Finish(rt, "count");
  const string_view text = self.AsString();
  if (!rt.Charge(static_cast<int64_t>(text.size()))) return Value();
  if (wanted.empty()) return Value::Int(CountUtf8(text) + 1);
  int64_t count = 0;
  for (size_t at = 0; (at = text.find(wanted, at)) != string_view::npos; at += wanted.size()) {
    ++count;
  }
  return Value::Int(count);
}

template <bool (*kIs)(char32_t)>
Value All(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "a method of str");
  bool all = !self.AsString().empty();
  EachCharacter(self.AsString(),
                [&](string_view character) { all = all && kIs(ReadUtf8(character).code_point); });
  return Value::Bool(all);
}

bool IsAlphaOrDigit(char32_t c) { return IsAlpha(c) || IsDigit(c); }

Value IsUpperText(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "isupper");
  const std::string& text = self.AsString();
  return Value::Bool(text == jinja::Upper(text) && text != jinja::Lower(text));
}
Value IsLowerText(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "islower");
  const std::string& text = self.AsString();
  return Value::Bool(text == jinja::Lower(text) && text != jinja::Upper(text));
}

// str.format with fields such as {}, {0} and {name}, without format specifications.
Value Format(Runtime& rt, const Value& self, Arguments& args) {
  const string_view text = self.AsString();
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < text.size() && rt.ok(); ++i) {
    const bool doubled = i + 1 < text.size() && text[i + 1] == text[i];
    if ((text[i] == '{' || text[i] == '}') && doubled) {
      out.push_back(text[i++]);
      continue;
    }
    if (text[i] == '}') return rt.Fail("single '}' encountered in format string");
    if (text[i] != '{') {
      out.push_back(text[i]);
      continue;
    }
    const size_t end = text.find('}', i);
    if (end == string_view::npos) return rt.Fail("expected '}' before end of string");
    const string_view field = text.substr(i + 1, end - i - 1);
    i = end;
    int64_t position = 0;
    if (field.empty()) {
      position = static_cast<int64_t>(next++);
    } else if (!absl::SimpleAtoi(field, &position)) {
      position = -1;
    }
    auto named = std::find_if(args.named.begin(), args.named.end(),
                              [&](const auto& entry) { return entry.first == field; });
    if (position >= 0 && position < static_cast<int64_t>(args.positional.size())) {
      out += rt.ToText(args.positional[position]);
    } else if (position < 0 && named != args.named.end()) {
      out += rt.ToText(named->second);
    } else {
      return rt.Fail(absl::StrCat("format() has no argument for the field '{", field, "}'"));
    }
    if (!rt.Charge(static_cast<int64_t>(out.size()) / 16)) return Value();
  }
  return rt.Text(std::move(out));
}

}  // namespace

MethodFunction FindTextMethod(string_view name) {
  static const auto* const kMethods =
      new absl::flat_hash_map<string_view, MethodFunction>{{"capitalize", Capitalize},
                                                           {"count", Count},
                                                           {"endswith", EndsWith},
                                                           {"find", Find},
                                                           {"format", Format},
                                                           {"index", Index},
                                                           {"isalnum", All<IsAlphaOrDigit>},
                                                           {"isalpha", All<IsAlpha>},
                                                           {"isdigit", All<IsDigit>},
                                                           {"isdecimal", All<IsDigit>},
                                                           {"isnumeric", All<IsDigit>},
                                                           {"islower", IsLowerText},
                                                           {"isspace", All<IsSpace>},
                                                           {"isupper", IsUpperText},
                                                           {"join", Join},
                                                           {"lower", Lower},
                                                           {"casefold", Lower},
                                                           {"lstrip", StripLeft},
                                                           {"partition", Partition},
                                                           {"removeprefix", RemovePrefix},
                                                           {"removesuffix", RemoveSuffix},
                                                           {"replace", Replace},
                                                           {"rfind", FindRight},
                                                           {"rpartition", PartitionRight},
                                                           {"rsplit", SplitRight},
                                                           {"rstrip", StripRight},
                                                           {"split", Split},
                                                           {"splitlines", SplitLines},
                                                           {"startswith", StartsWith},
                                                           {"strip", StripBoth},
                                                           {"title", Title},
                                                           {"upper", Upper}};
  auto it = kMethods->find(name);
  return it == kMethods->end() ? nullptr : it->second;
}

}  // namespace longhaul::jinja
