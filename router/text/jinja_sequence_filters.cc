// Filters over lists and dicts that call no other filter or test.
#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "router/text/jinja_filters.h"
#include "router/text/jinja_unicode.h"

namespace longhaul::jinja {
namespace {

Value Default(Runtime& rt, const Value& input, Arguments& args) {
  const Value fallback = args.Or(0, "default_value", Value::String(""));
  const bool falsy_too = rt.Truthy(args.Or(1, "boolean", Value::Bool(false)));
  args.Finish(rt, "default");
  return input.is_undefined() || (falsy_too && !rt.Truthy(input)) ? fallback : input;
}

Value Length(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "length");
  return Value::Int(rt.Length(input));
}

Value First(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "first");
  const std::vector<Value> items = rt.Iterate(input);
  return items.empty() ? Value::Undefined("No first item, sequence was empty.") : items.front();
}

Value Last(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "last");
  if (input.kind() == Kind::kIterator) return rt.Fail("'generator' object is not reversible");
  const std::vector<Value> items = rt.Iterate(input);
  return items.empty() ? Value::Undefined("No last item, sequence was empty.") : items.back();
}

Value List(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "list");
  return rt.List(rt.Iterate(input));
}

Value Join(Runtime& rt, const Value& input, Arguments& args) {
  const std::string separator = rt.ToText(args.Or(0, "d", Value::String("")));
  Value path;
  const bool has_path = args.Take(1, "attribute", &path) && !path.is_none();
  args.Finish(rt, "join");
  std::string out;
  bool first = true;
  for (const Value& item : rt.Iterate(input)) {
    const std::string text = rt.ToText(has_path ? LookUpPath(rt, item, path) : item);
    if (!rt.Charge(static_cast<int64_t>(text.size() + separator.size()))) return Value();
    absl::StrAppend(&out, first ? "" : separator, text);
    first = false;
  }
  return rt.Text(std::move(out));
}

Value Items(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "items");
  if (input.is_undefined()) return rt.Iterator({});
  if (!input.is_dict()) return rt.Fail("Can only get item pairs from a mapping.");
  std::vector<Value> pairs;
  for (const auto& [key, value] : input.AsDict().entries()) {
    pairs.push_back(rt.List({key, value}, Kind::kTuple));
  }
  return rt.Iterator(std::move(pairs));
}

Value Reverse(Runtime& rt, const Value& input, Arguments& args) {
  args.Finish(rt, "reverse");
  if (input.is_string()) {
    return rt.Slice(input, Value::None(), Value::None(), Value::Int(-1));
  }
  std::vector<Value> items = rt.Iterate(input);
  std::reverse(items.begin(), items.end());
  return rt.Iterator(std::move(items));
}

// What Jinja compares texts by unless told to mind the case.
Value FoldCase(Runtime& rt, const Value& value, bool case_sensitive) {
  return value.is_string() && !case_sensitive ? rt.Text(Lower(value.AsString())) : value;
}

struct Keyed {
  Value key;
  Value value;
};

Value SortKeyed(Runtime& rt, std::vector<Keyed> keyed, bool reverse) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? rt.Less(b.key, a.key) : rt.Less(a.key, b.key);
  });
  std::vector<Value> items;
  for (Keyed& item : keyed) items.push_back(std::move(item.value));
  return rt.List(std::move(items));
}

Value Sort(Runtime& rt, const Value& input, Arguments& args) {
  const bool reverse = rt.Truthy(args.Or(0, "reverse", Value::Bool(false)));
  const bool case_sensitive = rt.Truthy(args.Or(1, "case_sensitive", Value::Bool(false)));
  Value path;
  const bool has_path = args.Take(2, "attribute", &path) && !path.is_none();
  args.Finish(rt, "sort");
  std::vector<Keyed> keyed;
  for (const Value& item : rt.Iterate(input)) {
    keyed.push_back(
        {FoldCase(rt, has_path ? LookUpPath(rt, item, path) : item, case_sensitive), item});
  }
  return SortKeyed(rt, std::move(keyed), reverse);
}

Value DictSort(Runtime& rt, const Value& input, Arguments& args) {
  const bool case_sensitive = rt.Truthy(args.Or(0, "case_sensitive", Value::Bool(false)));
  const std::string by = rt.ToText(args.Or(1, "by", Value::String("key")));
  const bool reverse = rt.Truthy(args.Or(2, "reverse", Value::Bool(false)));
  args.Finish(rt, "dictsort");
  if (by != "key" && by != "value") return rt.Fail("dictsort() sorts by 'key' or 'value'");
  if (!input.is_dict()) {
    return rt.Fail(absl::StrCat("dictsort() needs a dict, not ", TypeName(input)));
  }
  std::vector<Keyed> keyed;
  for (const auto& [key, value] : input.AsDict().entries()) {
    keyed.push_back({FoldCase(rt, by == "key" ? key : value, case_sensitive),
                     rt.List({key, value}, Kind::kTuple)});
  }
  return SortKeyed(rt, std::move(keyed), reverse);
}

Value Unique(Runtime& rt, const Value& input, Arguments& args) {
  const bool case_sensitive = rt.Truthy(args.Or(0, "case_sensitive", Value::Bool(false)));
  Value path;
  const bool has_path = args.Take(1, "attribute", &path) && !path.is_none();
  args.Finish(rt, "unique");
  Dict seen;
  std::vector<Value> items;
  for (const Value& item : rt.Iterate(input)) {
    const Value key = FoldCase(rt, has_path ? LookUpPath(rt, item, path) : item, case_sensitive);
    if (!rt.ok() || !rt.Hashable(key)) return Value();
    if (seen.Find(key) != nullptr) continue;
    seen.Set(key, Value::None());
    items.push_back(item);
  }
  return rt.Iterator(std::move(items));
}

Value Extreme(Runtime& rt, const Value& input, Arguments& args, bool want_max) {
  const bool case_sensitive = rt.Truthy(args.Or(0, "case_sensitive", Value::Bool(false)));
  Value path;
  const bool has_path = args.Take(1, "attribute", &path) && !path.is_none();
  args.Finish(rt, want_max ? "max" : "min");
  const std::vector<Value> items = rt.Iterate(input);
  if (items.empty()) return Value::Undefined("No aggregated item, sequence was empty.");
  Keyed best;
  for (const Value& item : items) {
    Keyed candidate = {FoldCase(rt, has_path ? LookUpPath(rt, item, path) : item, case_sensitive),
                       item};
    const bool better = &item == &items.front() || (want_max ? rt.Less(best.key, candidate.key)
                                                             : rt.Less(candidate.key, best.key));
    if (!rt.ok()) return Value();
    if (better) best = std::move(candidate);
  }
  return best.value;
}

Value Min(Runtime& rt, const Value& input, Arguments& args) {
  return Extreme(rt, input, args, false);
}

Value Max(Runtime& rt, const Value& input, Arguments& args) {
  return Extreme(rt, input, args, true);
}

Value Sum(Runtime& rt, const Value& input, Arguments& args) {
  Value path;
  const bool has_path = args.Take(0, "attribute", &path) && !path.is_none();
  Value total = args.Or(1, "start", Value::Int(0));
  args.Finish(rt, "sum");
  for (const Value& item : rt.Iterate(input)) {
    total =
        rt.Arithmetic(Runtime::Operator::kAdd, total, has_path ? LookUpPath(rt, item, path) : item);
    if (!rt.ok()) return Value();
  }
  return total;
}

Value Batch(Runtime& rt, const Value& input, Arguments& args) {
  const Value size = args.Or(0, "linecount", Value());
  Value filler;
  const bool fill = args.Take(1, "fill_with", &filler) && !filler.is_none();
  args.Finish(rt, "batch");
  if (!size.is_integral() || size.AsInt() < 1 || size.AsInt() > 1'000'000) {
    return rt.Fail("batch() needs a size from 1 to 1000000");
  }
  std::vector<Value> batches;
  std::vector<Value> batch;
  for (const Value& item : rt.Iterate(input)) {
    if (static_cast<int64_t>(batch.size()) == size.AsInt()) {
      batches.push_back(rt.List(std::exchange(batch, {})));
    }
    batch.push_back(item);
  }
  if (!batch.empty()) {
    while (fill && static_cast<int64_t>(batch.size()) < size.AsInt() && rt.Step()) {
      batch.push_back(filler);
    }
    batches.push_back(rt.List(std::move(batch)));
  }
  return rt.Iterator(std::move(batches));
}

Value GroupBy(Runtime& rt, const Value& input, Arguments& args) {
  const Value path = args.Or(0, "attribute", Value());
  const Value fallback = args.Or(1, "default", Value());
  const bool case_sensitive = rt.Truthy(args.Or(2, "case_sensitive", Value::Bool(false)));
  args.Finish(rt, "groupby");
  auto attribute = [&](const Value& item) {
    const Value found = LookUpPath(rt, item, path);
    return found.is_undefined() ? fallback : found;
  };
  std::vector<Keyed> keyed;
  for (const Value& item : rt.Iterate(input)) {
    keyed.push_back({FoldCase(rt, attribute(item), case_sensitive), item});
  }
  const Value sorted = SortKeyed(rt, std::move(keyed), false);
  if (!rt.ok()) return Value();
  std::vector<Value> groups;
  std::vector<Value> group;
  Value group_key;
  auto close = [&] {
    if (group.empty()) return;
    // The name is the first element's own, before its case was folded.
    const Value name = attribute(group.front());
    groups.push_back(rt.List({name, rt.List(std::exchange(group, {}))}, Kind::kTuple));
  };
  for (const Value& item : sorted.AsList()) {
    const Value key = FoldCase(rt, attribute(item), case_sensitive);
    if (!group.empty() && !rt.Equal(key, group_key)) close();
    group_key = key;
    group.push_back(item);
  }
  close();
  return rt.List(std::move(groups));
}

Value Attr(Runtime& rt, const Value& input, Arguments& args) {
  const Value name = args.Or(0, "name", Value());
  args.Finish(rt, "attr");
  // Python's getattr: a dict's items are none of its attributes.
  if (input.is_dict()) return BoundMethod(input, rt.ToText(name));
  return rt.Attribute(input, rt.ToText(name));
}

}  // namespace

Value LookUpPath(Runtime& rt, const Value& value, const Value& path) {
  if (!path.is_string()) return rt.Item(value, path);
  Value current = value;
  for (absl::string_view part : absl::StrSplit(path.AsString(), '.')) {
    int64_t index = 0;
    current = absl::SimpleAtoi(part, &index) ? rt.Item(current, Value::Int(index))
                                             : rt.Item(current, Value::String(std::string(part)));
    if (!rt.ok()) return Value();
  }
  return current;
}

FilterFunction FindSequenceFilter(absl::string_view name) {
  static const auto* const kFilters = new absl::flat_hash_map<absl::string_view, FilterFunction>{
      {"attr", Attr},       {"batch", Batch},       {"count", Length}, {"d", Default},
      {"default", Default}, {"dictsort", DictSort}, {"first", First},  {"groupby", GroupBy},
      {"items", Items},     {"join", Join},         {"last", Last},    {"length", Length},
      {"list", List},       {"max", Max},           {"min", Min},      {"reverse", Reverse},
      {"sort", Sort},       {"sum", Sum},           {"unique", Unique}};
  auto it = kFilters->find(name);
  return it == kFilters->end() ? nullptr : it->second;
}

}  // namespace longhaul::jinja
