#include "router/text/jinja_value.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "router/text/jinja_runtime.h"

namespace longhaul::jinja {

Value Value::Undefined(std::string what) {
  Value value;
  value.object_ = std::make_shared<StringObject>(std::move(what));
  return value;
}

Value Value::Bool(bool flag) {
  Value value(Kind::kBool);
  value.int_ = flag ? 1 : 0;
  return value;
}

Value Value::Int(int64_t number) {
  Value value(Kind::kInt);
  value.int_ = number;
  return value;
}

Value Value::Float(double number) {
  Value value(Kind::kFloat);
  value.float_ = number;
  return value;
}

Value Value::String(std::string text) {
  return Of(Kind::kString, std::make_shared<StringObject>(std::move(text)));
}

Value Value::SafeString(std::string text) {
  auto object = std::make_shared<StringObject>(std::move(text));
  object->safe = true;
  return Of(Kind::kString, std::move(object));
}

bool Value::is_safe_string() const {
  return kind_ == Kind::kString && static_cast<const StringObject&>(*object_).safe;
}

Value Value::Of(Kind kind, std::shared_ptr<Object> object) {
  Value value(kind);
  value.object_ = std::move(object);
  return value;
}

const std::string& Value::AsString() const {
  LH_CHECK(kind_ == Kind::kString, TypeName(*this));
  return static_cast<const StringObject&>(*object_).text;
}

const std::vector<Value>& Value::AsList() const {
  LH_CHECK(is_list(), TypeName(*this));
  return static_cast<const Sequence&>(*object_).items;
}

const Dict& Value::AsDict() const {
  LH_CHECK(kind_ == Kind::kDict, TypeName(*this));
  return static_cast<const Dict&>(*object_);
}

Sequence& Value::AsIterator() const {
  LH_CHECK(kind_ == Kind::kIterator, TypeName(*this));
  return static_cast<Sequence&>(*object_);
}

Namespace& Value::AsNamespace() const {
  LH_CHECK(kind_ == Kind::kNamespace, TypeName(*this));
  return static_cast<Namespace&>(*object_);
}

const Loop& Value::AsLoop() const {
  LH_CHECK(kind_ == Kind::kLoop, TypeName(*this));
  return static_cast<const Loop&>(*object_);
}

const Callable& Value::AsCallable() const {
  LH_CHECK(kind_ == Kind::kCallable, TypeName(*this));
  return static_cast<const Callable&>(*object_);
}

std::string Value::UndefinedMessage() const {
  if (object_ == nullptr) return "a value is undefined";
  return static_cast<const StringObject&>(*object_).text;
}

int Value::depth() const {
  switch (kind_) {
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kIterator:
      return static_cast<const Sequence&>(*object_).depth;
    case Kind::kDict:
      return static_cast<const Dict&>(*object_).depth();
    case Kind::kLoop:
      return static_cast<const Loop&>(*object_).depth();
    case Kind::kCallable:
      return static_cast<const Callable&>(*object_).depth();
    default:
      return 0;
  }
}

Sequence::Sequence(std::vector<Value> values) : items(std::move(values)) {
  for (const Value& item : items) depth = std::max(depth, item.depth() + 1);
}

std::string Dict::Hash(const Value& key) {
  switch (key.kind()) {
    case Kind::kString:
      return "s" + key.AsString();
    case Kind::kBool:
    case Kind::kInt:
      return absl::StrCat("i", key.AsInt());
    case Kind::kFloat: {
      const double number = key.AsFloat();
      if (number == std::floor(number) && std::abs(number) < 9e18) {
        return absl::StrCat("i", static_cast<int64_t>(number));
      }
      return absl::StrCat("f", number);
    }
    case Kind::kTuple: {
      std::string hash = "(";
      for (const Value& item : key.AsList()) {
        const std::string part = Hash(item);
        absl::StrAppend(&hash, part.size(), ":", part);
      }
      return hash;
    }
    default:
      return absl::StrCat("o", TypeName(key));
  }
}

void Dict::Set(Value key, Value value) {
  depth_ = std::max({depth_, key.depth() + 1, value.depth() + 1});
  auto [it, inserted] = index_.try_emplace(Hash(key), entries_.size());
  if (inserted) {
    entries_.emplace_back(std::move(key), std::move(value));
  } else {
    entries_[it->second].second = std::move(value);
  }
}

const Value* Dict::Find(const Value& key) const {
  auto it = index_.find(Hash(key));
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

const Value* Dict::Find(absl::string_view key) const {
  auto it = index_.find(absl::StrCat("s", key));
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

Value Loop::Attribute(absl::string_view name) const {
  const int64_t size = static_cast<int64_t>(items_->items.size());
  const int64_t index = static_cast<int64_t>(index_);
  if (name == "index") return Value::Int(index + 1);
  if (name == "index0") return Value::Int(index);
  if (name == "revindex") return Value::Int(size - index);
  if (name == "revindex0") return Value::Int(size - index - 1);
  if (name == "first") return Value::Bool(index == 0);
  if (name == "last") return Value::Bool(index + 1 == size);
  if (name == "length") return Value::Int(size);
  if (name == "depth") return Value::Int(1);
  if (name == "depth0") return Value::Int(0);
  if (name == "previtem") {
    return index > 0 ? items_->items[index - 1] : Value::Undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return index + 1 < size ? items_->items[index + 1] : Value::Undefined("there is no next item");
  }
  return Value::Undefined(absl::StrCat("'loop' has no attribute '", name, "'"));
}

Value FromJson(const boost::json::value& json) {
  namespace bj = boost::json;
  switch (json.kind()) {
    case bj::kind::null:
      return Value::None();
    case bj::kind::bool_:
      return Value::Bool(json.get_bool());
    case bj::kind::int64:
      return Value::Int(json.get_int64());
    case bj::kind::uint64:
      return Value::Float(static_cast<double>(json.get_uint64()));
    case bj::kind::double_:
      return Value::Float(json.get_double());
    case bj::kind::string:
      return Value::String(std::string(json.get_string().data(), json.get_string().size()));
    case bj::kind::array: {
      std::vector<Value> items;
      items.reserve(json.get_array().size());
      for (const bj::value& item : json.get_array()) items.push_back(FromJson(item));
      return Value::Of(Kind::kList, std::make_shared<Sequence>(std::move(items)));
    }
    case bj::kind::object: {
      auto dict = std::make_shared<Dict>();
      for (const bj::key_value_pair& entry : json.get_object()) {
        dict->Set(Value::String(std::string(entry.key().data(), entry.key().size())),
                  FromJson(entry.value()));
      }
      return Value::Of(Kind::kDict, std::move(dict));
    }
  }
  return Value::None();
}

absl::string_view TypeName(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kIterator:
      return "generator";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCallable:
      return "function";
  }
  return "object";
}

}  // namespace longhaul::jinja
