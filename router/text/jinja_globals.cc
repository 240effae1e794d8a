// Methods of lists, dicts and loops, and the functions that every template can call.
#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "router/text/jinja_filters.h"
#include "router/text/jinja_text_methods.h"

namespace longhaul::jinja {
namespace {

class Method : public Callable {
 public:
  Method(Value self, MethodFunction function) : self_(std::move(self)), function_(function) {}
  Value Call(Runtime& rt, Arguments& args) const override { return function_(rt, self_, args); }
  int depth() const override { return self_.depth() + 1; }

 private:
  const Value self_;
  const MethodFunction function_;
};

// What the immutable sandbox refuses: it would change a value that others may hold.
class UnsafeMethod : public Callable {
 public:
  explicit UnsafeMethod(std::string what) : what_(std::move(what)) {}
  Value Call(Runtime& rt, Arguments& args) const override {
    return rt.Fail(absl::StrCat("access to ", what_, " is unsafe: values cannot be changed"));
  }

 private:
  const std::string what_;
};

Value ListIndex(Runtime& rt, const Value& self, Arguments& args) {
  const Value wanted = args.Or(0, "value", Value());
  args.Finish(rt, "index");
  for (size_t i = 0; i < self.AsList().size() && rt.ok(); ++i) {
    if (rt.Equal(self.AsList()[i], wanted)) return Value::Int(static_cast<int64_t>(i));
  }
  return rt.Fail("value is not in list");
}

Value ListCount(Runtime& rt, const Value& self, Arguments& args) {
  const Value wanted = args.Or(0, "value", Value());
  args.Finish(rt, "count");
  int64_t count = 0;
  for (const Value& item : self.AsList()) count += rt.Equal(item, wanted) ? 1 : 0;
  return Value::Int(count);
}

Value Copy(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "copy");
  return self;  // nothing can change it
}

Value DictGet(Runtime& rt, const Value& self, Arguments& args) {
  const Value key = args.Or(0, "key", Value());
  const Value fallback = args.Or(1, "default", Value::None());
  args.Finish(rt, "get");
  if (!rt.Hashable(key)) return Value();
  const Value* found = self.AsDict().Find(key);
  return found == nullptr ? fallback : *found;
}

// Python's views can be looped over again and again, unlike generators, and have a length; nothing
// else that a template does tells them from lists.
Value DictItems(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "items");
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.AsDict().entries()) {
    pairs.push_back(rt.List({key, value}, Kind::kTuple));
  }
  return rt.List(std::move(pairs));
}

Value DictKeys(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "keys");
  return rt.List(rt.Iterate(self));
}

Value DictValues(Runtime& rt, const Value& self, Arguments& args) {
  args.Finish(rt, "values");
  std::vector<Value> values;
  for (const auto& entry : self.AsDict().entries()) values.push_back(entry.second);
  return rt.List(std::move(values));
}

Value LoopCycle(Runtime& rt, const Value& self, Arguments& args) {
  if (args.positional.empty()) return rt.Fail("no items for cycling given");
  return args.positional[self.AsLoop().index() % args.positional.size()];
}

MethodFunction FindMethod(const Value& value, absl::string_view name) {
  if (value.is_string()) return FindTextMethod(name);
  if (value.is_list()) {
    if (name == "index") return ListIndex;
    if (name == "count") return ListCount;
    if (name == "copy" && value.kind() == Kind::kList) return Copy;
  } else if (value.is_dict()) {
    if (name == "get") return DictGet;
    if (name == "items") return DictItems;
    if (name == "keys") return DictKeys;
    if (name == "values") return DictValues;
    if (name == "copy") return Copy;
  } else if (value.kind() == Kind::kLoop && name == "cycle") {
    return LoopCycle;
  }
  return nullptr;
}

bool ChangesValue(const Value& value, absl::string_view name) {
  static const auto* const kList = new absl::flat_hash_set<absl::string_view>{
      "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
  static const auto* const kDict =
      new absl::flat_hash_set<absl::string_view>{"clear", "pop", "popitem", "setdefault", "update"};
  return (value.kind() == Kind::kList && kList->contains(name)) ||
         (value.is_dict() && kDict->contains(name));
}

using GlobalFunction = Value (*)(Runtime& rt, Arguments& args);

class Global : public Callable {
 public:
  explicit Global(GlobalFunction function) : function_(function) {}
  Value Call(Runtime& rt, Arguments& args) const override { return function_(rt, args); }

 private:
  const GlobalFunction function_;
};

Value RaiseException(Runtime& rt, Arguments& args) {
  const Value message = args.Or(0, "message", Value());
  args.Finish(rt, "raise_exception");
  return rt.Fail(absl::StrCat("the template refuses these messages: ", rt.ToText(message)));
}

Value Range(Runtime& rt, Arguments& args) {
  // What Jinja's sandbox allows.
  constexpr int64_t kElementsMax = 100000;
  const Value a = args.Or(0, "start", Value());
  const Value b = args.Or(1, "stop", Value::None());
  const Value c = args.Or(2, "step", Value::Int(1));
  args.Finish(rt, "range");
  if (!a.is_integral() || !(b.is_none() || b.is_integral()) || !c.is_integral()) {
    return rt.Fail("range() needs integers");
  }
  const int64_t start = b.is_none() ? 0 : a.AsInt();
  const int64_t stop = b.is_none() ? a.AsInt() : b.AsInt();
  const int64_t step = c.AsInt();
  if (step == 0) return rt.Fail("range() arg 3 must not be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) >= kElementsMax) {
      return rt.Fail(absl::StrCat("range() is limited to ", kElementsMax, " elements"));
    }
    items.push_back(Value::Int(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return rt.List(std::move(items));
}

// The pairs of an optional dict argument and of the keyword arguments.
std::vector<std::pair<Value, Value>> Pairs(Runtime& rt, Arguments& args, absl::string_view what) {
  std::vector<std::pair<Value, Value>> pairs;
  if (!args.positional.empty()) {
    const Value& first = args.positional[0];
    if (args.positional.size() > 1 || (!first.is_dict() && !first.is_list())) {
      rt.Fail(absl::StrCat(what, "() needs at most one dict or list of pairs"));
      return pairs;
    }
    if (first.is_dict()) pairs = first.AsDict().entries();
    for (const Value& pair : first.is_dict() ? std::vector<Value>() : first.AsList()) {
      if (!pair.is_list() || pair.AsList().size() != 2) {
        rt.Fail(absl::StrCat(what, "() needs pairs"));
        return pairs;
      }
      pairs.emplace_back(pair.AsList()[0], pair.AsList()[1]);
    }
  }
  for (const auto& [name, value] : args.named) pairs.emplace_back(Value::String(name), value);
  return pairs;
}

Value MakeDict(Runtime& rt, Arguments& args) {
  auto dict = std::make_shared<Dict>();
  for (auto& [key, value] : Pairs(rt, args, "dict")) {
    if (!rt.Hashable(key)) return Value();
    dict->Set(key, value);
  }
  return rt.NewDict(std::move(dict));
}

Value MakeNamespace(Runtime& rt, Arguments& args) {
  Value space = rt.NewNamespace();
  if (!rt.ok()) return Value();
  for (auto& [key, value] : Pairs(rt, args, "namespace")) {
    if (!key.is_string()) return rt.Fail("a namespace's attributes have texts as names");
    space.AsNamespace().attributes[key.AsString()] = value;
  }
  return space;
}

// Python's datetime.now().strftime(format), in UTC at the time that the caller handed in.
Value FormatNow(Runtime& rt, Arguments& args) {
  const Value format = args.Or(0, "format", Value());
  args.Finish(rt, "strftime_now");
  if (!format.is_string() || format.AsString().size() > 256) {
    return rt.Fail("strftime_now() needs a format of up to 256 bytes");
  }
  const std::string& text = format.AsString();
  for (size_t i = text.find('%'); i != std::string::npos; i = text.find('%', i + 1)) {
    size_t conversion = i + 1;
    if (conversion < text.size() && text[conversion] == '-') ++conversion;
    if (conversion >= text.size() ||
        absl::string_view("aAbBcCdDeFHIjmMnpSTuUwWxXyYzZ%").find(text[conversion]) ==
            absl::string_view::npos) {
      return rt.Fail(absl::StrCat("strftime_now() does not know the format at byte ", i));
    }
    i = conversion;
  }
  return rt.Text(absl::FormatTime(text, absl::FromUnixSeconds(rt.now_s()), absl::UTCTimeZone()));
}

}  // namespace

Value BoundMethod(const Value& value, absl::string_view name) {
  if (MethodFunction method = FindMethod(value, name)) {
    return Value::Of(Kind::kCallable, std::make_shared<Method>(value, method));
  }
  if (ChangesValue(value, name)) {
    return Value::Of(Kind::kCallable,
                     std::make_shared<UnsafeMethod>(
                         absl::StrCat("attribute '", name, "' of '", TypeName(value), "' object")));
  }
  return Value();
}

Value FindGlobal(absl::string_view name) {
  static const auto* const kGlobals = new absl::flat_hash_map<absl::string_view, GlobalFunction>{
      {"dict", MakeDict},
      {"namespace", MakeNamespace},
      {"raise_exception", RaiseException},
      {"range", Range},
      {"strftime_now", FormatNow}};
  auto it = kGlobals->find(name);
  if (it == kGlobals->end()) return Value::Undefined(absl::StrCat("'", name, "' is undefined"));
  return Value::Of(Kind::kCallable, std::make_shared<Global>(it->second));
}

}  // namespace longhaul::jinja
