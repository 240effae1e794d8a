// Jinja's tests, the names after `is`.
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "router/text/jinja_filters.h"
#include "router/text/jinja_unicode.h"

namespace longhaul::jinja {
namespace {

template <typename Predicate>
bool Plain(Runtime& rt, Arguments& args, Predicate&& predicate) {
  args.Finish(rt, "a test");
  return predicate();
}

Value Other(Runtime& rt, Arguments& args) {
  Value other;
  if (!args.Take(0, "other", &other)) rt.Fail("a test lacks its argument");
  args.Finish(rt, "a test");
  return other;
}

bool IsDefined(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return !v.is_undefined(); });
}
bool IsUndefined(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.is_undefined(); });
}
bool IsNone(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.is_none(); });
}
bool IsBoolean(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.kind() == Kind::kBool; });
}
bool IsTrue(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.kind() == Kind::kBool && v.AsBool(); });
}
bool IsFalse(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.kind() == Kind::kBool && !v.AsBool(); });
}
bool IsInteger(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.kind() == Kind::kInt; });
}
bool IsFloat(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.kind() == Kind::kFloat; });
}
bool IsNumber(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.is_number(); });
}
bool IsString(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.is_string(); });
}
bool IsMapping(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.is_dict(); });
}
// What has a length and elements; Jinja counts undefined in.
bool IsSequence(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args,
               [&] { return v.is_list() || v.is_string() || v.is_dict() || v.is_undefined(); });
}
bool IsIterable(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] {
    return v.is_list() || v.is_string() || v.is_dict() || v.is_undefined() ||
           v.kind() == Kind::kIterator || v.kind() == Kind::kLoop;
  });
}
bool IsCallable(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.kind() == Kind::kCallable; });
}
bool IsEscaped(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [] { return false; });
}
bool IsFilterName(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.is_string() && FindFilter(v.AsString()) != nullptr; });
}
bool IsTestName(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] { return v.is_string() && FindTest(v.AsString()) != nullptr; });
}

bool IsEqual(Runtime& rt, const Value& v, Arguments& args) { return rt.Equal(v, Other(rt, args)); }
bool IsNotEqual(Runtime& rt, const Value& v, Arguments& args) {
  return !rt.Equal(v, Other(rt, args));
}
bool IsLess(Runtime& rt, const Value& v, Arguments& args) { return rt.Less(v, Other(rt, args)); }
bool IsGreater(Runtime& rt, const Value& v, Arguments& args) { return rt.Less(Other(rt, args), v); }
bool IsLessOrEqual(Runtime& rt, const Value& v, Arguments& args) {
  const Value other = Other(rt, args);
  return rt.Less(v, other) || rt.Equal(v, other);
}
bool IsGreaterOrEqual(Runtime& rt, const Value& v, Arguments& args) {
  const Value other = Other(rt, args);
  return rt.Less(other, v) || rt.Equal(v, other);
}
bool IsIn(Runtime& rt, const Value& v, Arguments& args) { return rt.Contains(Other(rt, args), v); }
bool IsSameAs(Runtime& rt, const Value& v, Arguments& args) {
  const Value other = Other(rt, args);
  if (v.kind() != other.kind()) return false;
  if (v.identity() != nullptr) return v.identity() == other.identity();
  return rt.Equal(v, other);
}

bool IsDivisibleBy(Runtime& rt, const Value& v, Arguments& args) {
  const Value rest = rt.Arithmetic(Runtime::Operator::kMod, v, Other(rt, args));
  return rt.ok() && !rt.Truthy(rest);
}
bool IsOdd(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] {
    return rt.Equal(rt.Arithmetic(Runtime::Operator::kMod, v, Value::Int(2)), Value::Int(1));
  });
}
bool IsEven(Runtime& rt, const Value& v, Arguments& args) {
  return Plain(rt, args, [&] {
    return rt.Equal(rt.Arithmetic(Runtime::Operator::kMod, v, Value::Int(2)), Value::Int(0));
  });
}

bool IsUpperText(Runtime& rt, const Value& v, Arguments& args) {
  const std::string text = rt.ToText(v);
  return Plain(rt, args, [&] { return text == Upper(text) && text != Lower(text); });
}
bool IsLowerText(Runtime& rt, const Value& v, Arguments& args) {
  const std::string text = rt.ToText(v);
  return Plain(rt, args, [&] { return text == Lower(text) && text != Upper(text); });
}

}  // namespace

TestFunction FindTest(absl::string_view name) {
  static const auto* const kTests =
      new absl::flat_hash_map<absl::string_view, TestFunction>{{"!=", IsNotEqual},
                                                               {"<", IsLess},
                                                               {"<=", IsLessOrEqual},
                                                               {"==", IsEqual},
                                                               {">", IsGreater},
                                                               {">=", IsGreaterOrEqual},
                                                               {"boolean", IsBoolean},
                                                               {"callable", IsCallable},
                                                               {"defined", IsDefined},
                                                               {"divisibleby", IsDivisibleBy},
                                                               {"eq", IsEqual},
                                                               {"equalto", IsEqual},
                                                               {"escaped", IsEscaped},
                                                               {"even", IsEven},
                                                               {"false", IsFalse},
                                                               {"filter", IsFilterName},
                                                               {"float", IsFloat},
                                                               {"ge", IsGreaterOrEqual},
                                                               {"greaterthan", IsGreater},
                                                               {"gt", IsGreater},
                                                               {"in", IsIn},
                                                               {"integer", IsInteger},
                                                               {"iterable", IsIterable},
                                                               {"le", IsLessOrEqual},
                                                               {"lessthan", IsLess},
                                                               {"lower", IsLowerText},
                                                               {"lt", IsLess},
                                                               {"mapping", IsMapping},
                                                               {"ne", IsNotEqual},
                                                               {"none", IsNone},
                                                               {"number", IsNumber},
                                                               {"odd", IsOdd},
                                                               {"sameas", IsSameAs},
                                                               {"sequence", IsSequence},
                                                               {"string", IsString},
                                                               {"test", IsTestName},
                                                               {"true", IsTrue},
                                                               {"undefined", IsUndefined},
                                                               {"upper", IsUpperText}};
  auto it = kTests->find(name);
  return it == kTests->end() ? nullptr : it->second;
}

}  // namespace longhaul::jinja
