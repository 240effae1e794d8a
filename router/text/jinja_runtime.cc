#include "router/text/jinja_runtime.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/utf8.h"
#include "router/text/jinja_unicode.h"

namespace longhaul::jinja {

bool Arguments::Take(size_t position, absl::string_view name, Value* out) {
  if (position < positional.size()) {
    positional_taken_ = std::max(positional_taken_, position + 1);
    *out = positional[position];
    return true;
  }
  for (const auto& [key, value] : named) {
    if (key != name) continue;
    ++named_taken_;
    *out = value;
    return true;
  }
  return false;
}

Value Arguments::Or(size_t position, absl::string_view name, Value fallback) {
  Take(position, name, &fallback);
  return fallback;
}

void Arguments::Finish(Runtime& runtime, absl::string_view what) const {
  if (positional_taken_ < positional.size()) {
    runtime.Fail(absl::StrCat(what, "() takes at most ", positional_taken_, " arguments, got ",
                              positional.size()));
  } else if (named_taken_ < named.size()) {
    runtime.Fail(absl::StrCat(what, "() got an unexpected or doubled keyword argument among its ",
                              named.size(), ", the first is '", named.front().first, "'"));
  }
}

Runtime::~Runtime() {
  for (const std::shared_ptr<Namespace>& space : namespaces_) space->attributes.clear();
}

Value Runtime::Fail(absl::string_view what) {
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("chat template, line ", line_, ": ", what.substr(0, 2000)));
  }
  return Value();
}

bool Runtime::Step(int64_t steps) {
  if (!ok()) return false;
  steps_ += steps;
  if (steps_ <= limits_.steps_max) return true;
  Fail(absl::StrCat("the render needs more than ", limits_.steps_max, " steps"));
  return false;
}

bool Runtime::Charge(int64_t bytes) {
  if (!ok()) return false;
  bytes_ += bytes;
  if (bytes_ <= limits_.bytes_max) return true;
  Fail(absl::StrCat("the render handles more than ", limits_.bytes_max, " bytes of text"));
  return false;
}

bool Runtime::Enter() {
  ++depth_;  // also on failure: Level's end takes it back in any case
  if (depth_ <= limits_.depth_max) return ok();
  Fail(absl::StrCat("nested deeper than ", limits_.depth_max, " levels"));
  return false;
}

Value Runtime::Text(std::string text) {
  if (!Charge(static_cast<int64_t>(text.size()) + 16)) return Value();
  return Value::String(std::move(text));
}

Value Runtime::SafeText(std::string text) {
  if (!Charge(static_cast<int64_t>(text.size()) + 16)) return Value();
  return Value::SafeString(std::move(text));
}

Value Runtime::List(std::vector<Value> items, Kind kind) {
  if (!Step(static_cast<int64_t>(items.size())) || !Charge(64)) return Value();
  auto sequence = std::make_shared<Sequence>(std::move(items));
  if (sequence->depth > limits_.container_depth_max) {
    return Fail(absl::StrCat("lists nested deeper than ", limits_.container_depth_max));
  }
  return Value::Of(kind, std::move(sequence));
}

Value Runtime::NewDict(std::shared_ptr<Dict> dict) {
  if (!Step(static_cast<int64_t>(dict->entries().size())) || !Charge(256)) return Value();
  if (dict->depth() > limits_.container_depth_max) {
    return Fail(absl::StrCat("dicts nested deeper than ", limits_.container_depth_max));
  }
  return Value::Of(Kind::kDict, std::move(dict));
}

Value Runtime::NewNamespace() {
  if (!Charge(256)) return Value();
  namespaces_.push_back(std::make_shared<Namespace>());
  return Value::Of(Kind::kNamespace, namespaces_.back());
}

bool Runtime::Truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.AsInt() != 0;
    case Kind::kFloat:
      return value.AsFloat() != 0;
    case Kind::kString:
      return !value.AsString().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !value.AsList().empty();
    case Kind::kDict:
      return !value.AsDict().entries().empty();
    default:
      return true;
  }
}

bool Runtime::Equal(const Value& a, const Value& b) {
  if (!Step()) return false;
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.AsInt() == b.AsInt();
    return a.AsFloat() == b.AsFloat();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      if (a.AsString().size() != b.AsString().size()) return false;
      return Charge(static_cast<int64_t>(a.AsString().size())) && a.AsString() == b.AsString();
    case Kind::kList:
    case Kind::kTuple: {
      const std::vector<Value>& left = a.AsList();
      const std::vector<Value>& right = b.AsList();
      if (left.size() != right.size()) return false;
      for (size_t i = 0; i < left.size(); ++i) {
        if (!Equal(left[i], right[i])) return false;
      }
      return true;
    }
    case Kind::kDict: {
      if (a.AsDict().entries().size() != b.AsDict().entries().size()) return false;
      for (const auto& [key, value] : a.AsDict().entries()) {
        const Value* other = b.AsDict().Find(key);
        if (other == nullptr || !Equal(value, *other)) return false;
      }
      return true;
    }
    default:
      return a.identity() == b.identity();
  }
}

bool Runtime::Less(const Value& a, const Value& b) {
  if (!Step()) return false;
  if (a.is_undefined() || b.is_undefined()) {
    FailUndefined(a.is_undefined() ? a : b);
    return false;
  }
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.AsInt() < b.AsInt();
    return a.AsFloat() < b.AsFloat();
  }
  if (a.is_string() && b.is_string()) {
    // UTF-8 orders bytewise as its code points do.
    return Charge(static_cast<int64_t>(std::min(a.AsString().size(), b.AsString().size()))) &&
           a.AsString() < b.AsString();
  }
  if (a.is_list() && a.kind() == b.kind()) {
    const std::vector<Value>& left = a.AsList();
    const std::vector<Value>& right = b.AsList();
    for (size_t i = 0; i < std::min(left.size(), right.size()) && ok(); ++i) {
      if (!Equal(left[i], right[i])) return Less(left[i], right[i]);
    }
    return left.size() < right.size();
  }
  Fail(absl::StrCat("'<' not supported between instances of '", TypeName(a), "' and '", TypeName(b),
                    "'"));
  return false;
}

bool Runtime::Contains(const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kString:
      if (!item.is_string()) {
        Fail(absl::StrCat("'in <string>' requires string as left operand, not ", TypeName(item)));
        return false;
      }
      return Charge(static_cast<int64_t>(container.AsString().size())) &&
             container.AsString().find(item.AsString()) != std::string::npos;
    case Kind::kDict:
      return Hashable(item) && container.AsDict().Find(item) != nullptr;
    default:
      for (const Value& candidate : Iterate(container)) {
        if (Equal(candidate, item)) return true;
        if (!ok()) return false;
      }
      return false;
  }
}

bool Runtime::Hashable(const Value& value) {
  bool hashable = true;
  switch (value.kind()) {
    case Kind::kString:
      return Charge(static_cast<int64_t>(value.AsString().size()));
    case Kind::kList:
    case Kind::kDict:
    case Kind::kNamespace:
    case Kind::kLoop:
    case Kind::kCallable:
    case Kind::kIterator:
      hashable = false;
      break;
    case Kind::kTuple:
      for (const Value& item : value.AsList()) {
        if (!Hashable(item)) return false;
      }
      break;
    default:
      break;
  }
  if (!hashable) Fail(absl::StrCat("unhashable type: '", TypeName(value), "'"));
  return hashable && ok();
}

std::vector<Value> Runtime::Iterate(const Value& value) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::kUndefined:
      break;
    case Kind::kString: {
      if (!Charge(static_cast<int64_t>(value.AsString().size()) * 64)) break;
      for (absl::string_view character : Characters(value.AsString())) {
        items.push_back(Value::String(std::string(character)));
      }
      break;
    }
    case Kind::kList:
    case Kind::kTuple:
      items = value.AsList();
      break;
    case Kind::kIterator:
      if (!value.AsIterator().consumed) items = value.AsIterator().items;
      value.AsIterator().consumed = true;
      break;
    case Kind::kDict:
      for (const auto& entry : value.AsDict().entries()) items.push_back(entry.first);
      break;
    default:
      Fail(absl::StrCat("'", TypeName(value), "' object is not iterable"));
  }
  if (!Step(static_cast<int64_t>(items.size()))) items.clear();
  return items;
}

int64_t Runtime::Length(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return Charge(static_cast<int64_t>(value.AsString().size())) ? CountUtf8(value.AsString())
                                                                   : 0;
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.AsList().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.AsDict().entries().size());
    default:
      Fail(absl::StrCat("object of type '", TypeName(value), "' has no len()"));
      return 0;
  }
}

Value Runtime::Attribute(const Value& value, absl::string_view name) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return FailUndefined(value);
    case Kind::kLoop:
      if (name == "cycle") return BoundMethod(value, name);
      return value.AsLoop().Attribute(name);
    case Kind::kNamespace: {
      auto it = value.AsNamespace().attributes.find(name);
      if (it != value.AsNamespace().attributes.end()) return it->second;
      break;
    }
    default: {
      Value method = BoundMethod(value, name);
      if (!method.is_undefined()) return method;
      if (value.is_dict()) {
        if (const Value* item = value.AsDict().Find(name)) return *item;
      }
    }
  }
  return Value::Undefined(
      absl::StrCat("'", TypeName(value), " object' has no attribute '", name, "'"));
}

Value Runtime::Item(const Value& value, const Value& key) {
  if (value.is_undefined()) return FailUndefined(value);
  if (value.is_dict()) {
    if (!Hashable(key)) return Value();
    if (const Value* item = value.AsDict().Find(key)) return *item;
  }
  if ((value.is_list() || value.is_string()) && key.is_integral()) {
    const int64_t size = Length(value);
    const int64_t index = key.AsInt() < 0 ? key.AsInt() + size : key.AsInt();
    if (index >= 0 && index < size) {
      if (value.is_list()) return value.AsList()[index];
      int64_t left = index;
      absl::string_view rest = value.AsString();
      for (; left > 0; --left) rest.remove_prefix(ReadUtf8(rest).bytes);
      return Text(std::string(rest.substr(0, ReadUtf8(rest).bytes)));
    }
    return Value::Undefined(absl::StrCat(TypeName(value), " object has no element ", key.AsInt()));
  }
  if (key.is_string() && value.kind() != Kind::kIterator) {
    if (value.is_dict()) {
      Value method = BoundMethod(value, key.AsString());
      if (!method.is_undefined()) return method;
    } else {
      return Attribute(value, key.AsString());
    }
  }
  return Value::Undefined(
      absl::StrCat("'", TypeName(value), " object' has no element ", ToRepr(key)));
}

Value Runtime::Slice(const Value& value, const Value& start, const Value& stop, const Value& step) {
  if (value.is_undefined()) return FailUndefined(value);
  if (!value.is_list() && !value.is_string()) {
    return Value::Undefined(absl::StrCat("'", TypeName(value), "' object cannot be sliced"));
  }
  for (const Value* bound : {&start, &stop, &step}) {
    if (!bound->is_none() && !bound->is_integral()) {
      return Fail(absl::StrCat("slice indices must be integers or None, not ", TypeName(*bound)));
    }
  }
  const int64_t size = Length(value);
  const int64_t by = step.is_none() ? 1 : step.AsInt();
  if (by == 0) return Fail("slice step cannot be zero");
  // Python's PySlice_AdjustIndices.
  const int64_t lowest = by > 0 ? 0 : -1;
  const int64_t highest = by > 0 ? size : size - 1;
  auto adjusted = [&](const Value& bound, int64_t fallback) {
    if (bound.is_none()) return fallback;
    const int64_t index = bound.AsInt() < 0 ? bound.AsInt() + size : bound.AsInt();
    return std::clamp(index, lowest, highest);
  };
  const int64_t from = adjusted(start, by > 0 ? 0 : size - 1);
  const int64_t to = adjusted(stop, by > 0 ? size : -1);
  std::vector<int64_t> indices;
  for (int64_t i = from; by > 0 ? i < to : i > to;) {
    indices.push_back(i);
    // The comparison first: i + by may not fit an int64.
    if (by > 0 ? by >= to - i : by <= to - i) break;
    i += by;
  }
  if (!Step(static_cast<int64_t>(indices.size()))) return Value();
  if (value.is_string()) {
    if (!Charge(static_cast<int64_t>(value.AsString().size()) * 16)) return Value();
    const std::vector<absl::string_view> characters = Characters(value.AsString());
    std::string text;
    for (int64_t i : indices) absl::StrAppend(&text, characters[i]);
    return Text(std::move(text));
  }
  std::vector<Value> items;
  items.reserve(indices.size());
  for (int64_t i : indices) items.push_back(value.AsList()[i]);
  return List(std::move(items), value.kind());
}

}  // namespace longhaul::jinja
