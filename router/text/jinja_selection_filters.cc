// Filters that apply another filter or a test to each element: map, select, reject and their
// attribute forms.
#include "absl/strings/str_cat.h"
#include "router/text/jinja_filters.h"

namespace longhaul::jinja {
namespace {

// The arguments after the first `skip`.
Arguments Rest(const Arguments& args, size_t skip) {
  Arguments rest;
  for (size_t i = skip; i < args.positional.size(); ++i) {
    rest.positional.push_back(args.positional[i]);
  }
  rest.named = args.named;
  return rest;
}

// Before it looks at its arguments, Jinja returns for what is empty, none or undefined.
bool IsNothing(Runtime& rt, const Value& input) { return !rt.Truthy(input); }

Value MapAttribute(Runtime& rt, const Value& input, Arguments& args, const Value& path) {
  const Value fallback = args.Or(1, "default", Value());
  std::vector<Value> items;
  for (const Value& item : rt.Iterate(input)) {
    const Value found = LookUpPath(rt, item, path);
    items.push_back(found.is_undefined() ? fallback : found);
    if (!rt.ok()) return Value();
  }
  return rt.Iterator(std::move(items));
}

Value Map(Runtime& rt, const Value& input, Arguments& args) {
  if (IsNothing(rt, input)) return rt.Iterator({});
  Value path;
  if (args.positional.empty() && args.Take(1, "attribute", &path)) {
    return MapAttribute(rt, input, args, path);
  }
  if (args.positional.empty() || !args.positional[0].is_string()) {
    return rt.Fail("map() needs the name of a filter or an attribute");
  }
  const std::string& name = args.positional[0].AsString();
  const FilterFunction filter = FindFilter(name);
  if (filter == nullptr) return rt.Fail(absl::StrCat("no filter is named '", name, "'"));
  std::vector<Value> items;
  for (const Value& item : rt.Iterate(input)) {
    Arguments rest = Rest(args, 1);
    items.push_back(filter(rt, item, rest));
    if (!rt.ok()) return Value();
  }
  return rt.Iterator(std::move(items));
}

// The arguments are [attribute,] [test, test's arguments...]; without a test an element counts when
// it is true.
Value SelectWhere(Runtime& rt, const Value& input, Arguments& args, bool wanted,
                  bool by_attribute) {
  if (IsNothing(rt, input)) return rt.Iterator({});
  const size_t first = by_attribute ? 1 : 0;
  if (args.positional.size() < first) return rt.Fail("the name of an attribute is missing");
  TestFunction test = nullptr;
  if (args.positional.size() > first) {
    const std::string name = rt.ToText(args.positional[first]);
    test = FindTest(name);
    if (test == nullptr) return rt.Fail(absl::StrCat("no test is named '", name, "'"));
  }
  std::vector<Value> items;
  for (const Value& item : rt.Iterate(input)) {
    const Value value = by_attribute ? LookUpPath(rt, item, args.positional[0]) : item;
    Arguments rest = Rest(args, first + 1);
    const bool holds = test == nullptr ? rt.Truthy(value) : test(rt, value, rest);
    if (!rt.ok()) return Value();
    if (holds == wanted) items.push_back(item);
  }
  return rt.Iterator(std::move(items));
}

Value Select(Runtime& rt, const Value& input, Arguments& args) {
  return SelectWhere(rt, input, args, true, false);
}
Value Reject(Runtime& rt, const Value& input, Arguments& args) {
  return SelectWhere(rt, input, args, false, false);
}
Value SelectAttr(Runtime& rt, const Value& input, Arguments& args) {
  return SelectWhere(rt, input, args, true, true);
}
Value RejectAttr(Runtime& rt, const Value& input, Arguments& args) {
  return SelectWhere(rt, input, args, false, true);
}

}  // namespace

FilterFunction FindSelectionFilter(absl::string_view name) {
  if (name == "map") return Map;
  if (name == "select") return Select;
  if (name == "reject") return Reject;
  if (name == "selectattr") return SelectAttr;
  if (name == "rejectattr") return RejectAttr;
  return nullptr;
}

FilterFunction FindFilter(absl::string_view name) {
  for (auto find : {FindTextFilter, FindSequenceFilter, FindSelectionFilter}) {
    if (FilterFunction filter = find(name)) return filter;
  }
  return nullptr;
}

}  // namespace longhaul::jinja
