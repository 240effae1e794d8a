// Runtime's arithmetic: Python's operators on numbers, text and lists.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "router/text/jinja_runtime.h"

namespace longhaul::jinja {
namespace {

constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};

}  // namespace

Value Runtime::Repeat(const Value& value, int64_t times) {
  if (times < 0) times = 0;
  if (value.is_string()) {
    const int64_t size = static_cast<int64_t>(value.AsString().size());
    if (size > 0 && times > limits_.bytes_max / size) {
      return Fail(absl::StrCat("a text of ", size, " bytes times ", times, " is too long"));
    }
    if (!Charge(size * times)) return Value();
    std::string text;
    text.reserve(static_cast<size_t>(size * times));
    for (int64_t i = 0; i < times && size > 0; ++i) text += value.AsString();
    return Text(std::move(text));
  }
  const int64_t size = static_cast<int64_t>(value.AsList().size());
  if (size > 0 && times > limits_.steps_max / size) {
    return Fail(absl::StrCat("a list of ", size, " elements times ", times, " is too long"));
  }
  if (!Step(size * times)) return Value();
  std::vector<Value> items;
  for (int64_t i = 0; i < times && size > 0; ++i) {
    items.insert(items.end(), value.AsList().begin(), value.AsList().end());
  }
  return List(std::move(items), value.kind());
}

Value Runtime::AddTexts(const Value& a, const Value& b) {
  const bool safe = a.is_safe_string() || b.is_safe_string();
  if (!safe) {
    // Charged before it is made.
    if (!Charge(static_cast<int64_t>(b.AsString().size()))) return Value();
    return Text(absl::StrCat(a.AsString(), b.AsString()));
  }
  std::string text;
  for (const Value* part : {&a, &b}) {
    if (!Charge(2 * static_cast<int64_t>(part->AsString().size()))) return Value();
    text +=
        part->is_safe_string()
            ? part->AsString()
            : absl::StrReplaceAll(
                  part->AsString(),
                  {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}});
  }
  return SafeText(std::move(text));
}

Value Runtime::IntegerArithmetic(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case Operator::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Operator::kSub:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Operator::kMul:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Operator::kDiv:
      if (b == 0) return Fail("division by zero");
      return Value::Float(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDiv:
    case Operator::kMod: {
      if (b == 0) return Fail("integer division or modulo by zero");
      if (b == -1) {  // also keeps INT64_MIN / -1 away from the processor
        overflow = op == Operator::kFloorDiv && __builtin_sub_overflow(int64_t{0}, a, &result);
        break;
      }
      const int64_t remainder = a % b;
      const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
      result = op == Operator::kMod ? remainder + (adjust ? b : 0) : a / b - (adjust ? 1 : 0);
      break;
    }
    case Operator::kPow: {
      if (b < 0) return FloatArithmetic(op, static_cast<double>(a), static_cast<double>(b));
      result = 1;
      if (a == 0 || a == 1) return Value::Int(b == 0 ? 1 : a);
      if (a == -1) return Value::Int(b % 2 == 0 ? 1 : -1);
      for (int64_t i = 0; i < b && !overflow; ++i) {
        overflow = __builtin_mul_overflow(result, a, &result);
      }
      break;
    }
  }
  if (overflow) {
    return Fail(
        absl::StrCat(a, " ", kSymbols[static_cast<int>(op)], " ", b, " does not fit 64 bits"));
  }
  return Value::Int(result);
}

Value Runtime::FloatArithmetic(Operator op, double a, double b) {
  if (b == 0 && (op == Operator::kDiv || op == Operator::kFloorDiv || op == Operator::kMod)) {
    return Fail("float division by zero");
  }
  switch (op) {
    case Operator::kAdd:
      return Value::Float(a + b);
    case Operator::kSub:
      return Value::Float(a - b);
    case Operator::kMul:
      return Value::Float(a * b);
    case Operator::kDiv:
      return Value::Float(a / b);
    case Operator::kFloorDiv:
      return Value::Float(std::floor(a / b));
    case Operator::kMod: {
      const double remainder = std::fmod(a, b);
      return Value::Float(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
    }
    case Operator::kPow: {
      const double power = std::pow(a, b);
      if (!std::isfinite(power) && std::isfinite(a) && std::isfinite(b)) {
        return Fail(absl::StrCat(a, " ** ", b, " is no finite real number"));
      }
      return Value::Float(power);
    }
  }
  return Value();
}

Value Runtime::Arithmetic(Operator op, const Value& a, const Value& b) {
  if (!Step()) return Value();
  if (a.is_undefined()) return FailUndefined(a);
  if (a.is_string() && op == Operator::kMod) {
    return PercentFormat(*this, a.AsString(),
                         b.kind() == Kind::kTuple ? b.AsList() : std::vector<Value>{b});
  }
  if (b.is_undefined()) return FailUndefined(b);
  if (a.is_integral() && b.is_integral()) return IntegerArithmetic(op, a.AsInt(), b.AsInt());
  if (a.is_number() && b.is_number()) return FloatArithmetic(op, a.AsFloat(), b.AsFloat());
  if (op == Operator::kAdd && a.is_string() && b.is_string()) return AddTexts(a, b);
  if (op == Operator::kAdd && a.is_list() && a.kind() == b.kind()) {
    if (!Step(static_cast<int64_t>(a.AsList().size() + b.AsList().size()))) return Value();
    std::vector<Value> items = a.AsList();
    items.insert(items.end(), b.AsList().begin(), b.AsList().end());
    return List(std::move(items), a.kind());
  }
  if (op == Operator::kMul && b.is_integral() && (a.is_string() || a.is_list())) {
    return Repeat(a, b.AsInt());
  }
  if (op == Operator::kMul && a.is_integral() && (b.is_string() || b.is_list())) {
    return Repeat(b, a.AsInt());
  }
  if (op == Operator::kAdd && a.is_string()) {
    return Fail(absl::StrCat("can only concatenate str (not \"", TypeName(b), "\") to str"));
  }
  return Fail(absl::StrCat("unsupported operand types for ", kSymbols[static_cast<int>(op)], ": '",
                           TypeName(a), "' and '", TypeName(b), "'"));
}

}  // namespace longhaul::jinja
