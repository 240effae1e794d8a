// What every part of a render shares: its limits, its error, and the operations on values (Python's
// semantics). The first error sticks: afterwards operations return undefined at once, so callers
// need not look at each step, only at the end and in loops.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "router/text/jinja_value.h"

namespace longhaul::jinja {

struct RenderLimits {
  int64_t steps_max = 5'000'000;  // nodes evaluated, elements visited
  int64_t bytes_max = 128 << 20;  // bytes of text made or searched, in all
  int64_t output_bytes_max = 32 << 20;
  int depth_max = 400;  // nested statements, expressions and macro calls
  int container_depth_max = 100;
};

class Runtime;

// The arguments of a call, taken one by one by name or position.
class Arguments {
 public:
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `position` or with `name`; undefined and false when there is none.
  bool Take(size_t position, absl::string_view name, Value* out);
  Value Or(size_t position, absl::string_view name, Value fallback);
  // Fails `runtime` on arguments that nobody took; `what` names the function.
  void Finish(Runtime& runtime, absl::string_view what) const;

 private:
  size_t positional_taken_ = 0;
  size_t named_taken_ = 0;
};

// A function that a template may call.
class Callable : public Object {
 public:
  virtual Value Call(Runtime& runtime, Arguments& arguments) const = 0;
  // As Value::depth, of what the callable holds.
  virtual int depth() const { return 0; }
};

class Runtime {
 public:
  Runtime(const RenderLimits& limits, int64_t now_s) : limits_(limits), now_s_(now_s) {}
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  const RenderLimits& limits() const { return limits_; }
  int64_t now_s() const { return now_s_; }
  void set_line(int line) { line_ = line; }
  // Remembers the first error; returns undefined, so that `return rt.Fail(...)` reads well.
  Value Fail(absl::string_view what);
  Value FailUndefined(const Value& value) { return Fail(value.UndefinedMessage()); }

  // Both return false, with an error set, when a limit is passed.
  bool Step(int64_t steps = 1);
  bool Charge(int64_t bytes);

  // One level of nesting, while it lives; not ok() when that is too deep.
  class Level {
   public:
    explicit Level(Runtime& runtime) : runtime_(runtime), ok_(runtime.Enter()) {}
    ~Level() { --runtime_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    bool ok() const { return ok_; }

   private:
    Runtime& runtime_;
    const bool ok_;
  };

  // Makers of values that count against the limits.
  Value Text(std::string text);
  Value SafeText(std::string text);  // see Value::SafeString
  Value List(std::vector<Value> items, Kind kind = Kind::kList);
  Value Iterator(std::vector<Value> items) { return List(std::move(items), Kind::kIterator); }
  Value NewDict(std::shared_ptr<Dict> dict);
  Value NewNamespace();

  bool Truthy(const Value& value);
  bool Equal(const Value& a, const Value& b);
  bool Less(const Value& a, const Value& b);  // fails unless the two can be ordered
  bool Contains(const Value& container, const Value& item);
  std::string ToText(const Value& value);  // str(value)
  std::string ToRepr(const Value& value);  // repr(value)
  std::vector<Value> Iterate(const Value& value);
  int64_t Length(const Value& value);  // fails for what has none
  bool Hashable(const Value& value);   // fails unless it can be a key

  // a.name and a[key], in the orders in which Jinja looks at methods and items.
  Value Attribute(const Value& value, absl::string_view name);
  Value Item(const Value& value, const Value& key);
  Value Slice(const Value& value, const Value& start, const Value& stop, const Value& step);

  enum class Operator : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
  Value Arithmetic(Operator op, const Value& a, const Value& b);

 private:
  bool Enter();

  Value IntegerArithmetic(Operator op, int64_t a, int64_t b);
  Value FloatArithmetic(Operator op, double a, double b);
  Value Repeat(const Value& value, int64_t times);
  Value AddTexts(const Value& a, const Value& b);
  void AppendRepr(const Value& value, std::string* out);

  const RenderLimits limits_;
  const int64_t now_s_;
  absl::Status status_;
  int line_ = 0;
  int64_t steps_ = 0;
  int64_t bytes_ = 0;
  int depth_ = 0;
  // A namespace can hold itself: they all live until the render ends and are emptied then.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

// A bound method: value.name(...); undefined, without a name, when the value's type has no such
// method. Methods that would change the value are refused when called.
Value BoundMethod(const Value& value, absl::string_view name);

// Python's repr of a float and of a string.
std::string FloatRepr(double number);
std::string StringRepr(absl::string_view text);

// json.dumps as Hugging Face's templates have it. `indent` < 0: on one line.
struct JsonStyle {
  bool ascii = false;
  int64_t indent = -1;
  bool sort_keys = false;
  std::string item_separator;  // empty: Python's default
  std::string key_separator;
};
std::string ToJson(Runtime& runtime, const Value& value, const JsonStyle& style);

// "percent-style" formatting: 'a%s' % x.
Value PercentFormat(Runtime& runtime, const std::string& format, const std::vector<Value>& values);

}  // namespace longhaul::jinja
