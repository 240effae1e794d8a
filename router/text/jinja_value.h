// The values that a Jinja template computes with, modelled on Python's. Cheap to copy; what they
// point to never changes after it was made (chat templates run in an immutable sandbox), except a
// namespace's attributes and an iterator's "consumed". Values of one render belong to one thread.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace longhaul::jinja {

// kIterator: what Python's generators and views are to a template: can be looped over once, has no
// length. kLoop: the `loop` of a for.
enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kIterator,
  kNamespace,
  kLoop,
  kCallable
};

struct Object {
  virtual ~Object() = default;
};

class Dict;
class Loop;
class Callable;
struct Namespace;
struct Sequence;

class Value {
 public:
  Value() = default;                         // undefined, without a name
  static Value Undefined(std::string what);  // `what`: for the error, as in "'x' is undefined"
  static Value None() { return Value(Kind::kNone); }
  static Value Bool(bool value);
  static Value Int(int64_t value);
  static Value Float(double value);
  static Value String(std::string text);
  // Text marked with the filter `safe`: what `+` joins to it is escaped for HTML, also here, where
  // nobody wants HTML, because that is what Jinja does and so what models were trained with.
  static Value SafeString(std::string text);
  static Value Of(Kind kind, std::shared_ptr<Object> object);

  Kind kind() const { return kind_; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_list() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }
  bool is_dict() const { return kind_ == Kind::kDict; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }

  // Each requires the kind it names; AsInt takes bools too, AsFloat all numbers.
  bool AsBool() const { return int_ != 0; }
  int64_t AsInt() const { return int_; }
  double AsFloat() const { return kind_ == Kind::kFloat ? float_ : static_cast<double>(int_); }
  const std::string& AsString() const;
  bool is_safe_string() const;
  const std::vector<Value>& AsList() const;  // kList, kTuple
  const Dict& AsDict() const;
  Sequence& AsIterator() const;
  Namespace& AsNamespace() const;
  const Loop& AsLoop() const;
  const Callable& AsCallable() const;
  // What an undefined value says when it is used.
  std::string UndefinedMessage() const;

  const Object* identity() const { return object_.get(); }
  // How many containers are inside each other here; bounded by whoever makes containers, so that
  // walking and destroying a value cannot run out of stack.
  int depth() const;

 private:
  explicit Value(Kind kind) : kind_(kind) {}

  Kind kind_ = Kind::kUndefined;
  union {
    int64_t int_ = 0;
    double float_;
  };
  std::shared_ptr<Object> object_;
};

struct StringObject : Object {
  explicit StringObject(std::string t) : text(std::move(t)) {}
  std::string text;
  bool safe = false;
};

struct Sequence : Object {
  explicit Sequence(std::vector<Value> values);
  std::vector<Value> items;
  int depth = 1;
  bool consumed = false;  // iterators only
};

// Keeps the order of insertion, as Python does. Keys are strings, numbers, none or tuples.
class Dict : public Object {
 public:
  void Set(Value key, Value value);
  const Value* Find(const Value& key) const;
  const Value* Find(absl::string_view key) const;
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  int depth() const { return depth_; }

 private:
  static std::string Hash(const Value& key);  // equal for keys that are equal

  std::vector<std::pair<Value, Value>> entries_;
  absl::flat_hash_map<std::string, size_t> index_;
  int depth_ = 1;
};

struct Namespace : Object {
  absl::flat_hash_map<std::string, Value> attributes;
};

// One turn of a for.
class Loop : public Object {
 public:
  Loop(std::shared_ptr<const Sequence> items, size_t index)
      : items_(std::move(items)), index_(index) {}
  Value Attribute(absl::string_view name) const;
  size_t index() const { return index_; }
  int depth() const { return items_->depth + 1; }

 private:
  std::shared_ptr<const Sequence> items_;
  size_t index_;
};

Value FromJson(const boost::json::value& json);

// Python's name of a value's type, for errors.
absl::string_view TypeName(const Value& value);

}  // namespace longhaul::jinja
