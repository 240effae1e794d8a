// Interpreter's expressions.
#include "absl/strings/str_cat.h"
#include "router/text/jinja_interpreter.h"

namespace longhaul::jinja {
namespace {

using Op = Expression::Kind;

}  // namespace

Value Interpreter::Evaluate(const Expression& expression) {
  Runtime::Level level(runtime_);
  if (!level.ok() || !runtime_.Step()) return Value();
  runtime_.set_line(expression.line);
  const auto& children = expression.children;
  switch (expression.kind) {
    case Op::kConstant:
      return expression.constant;
    case Op::kName:
      return EvaluateName(expression);
    case Op::kList:
    case Op::kTuple:
      return EvaluateList(expression);
    case Op::kDict:
      return EvaluateDict(expression);
    case Op::kAttribute:
      return runtime_.Attribute(Evaluate(*children[0]), expression.name);
    case Op::kItem: {
      const Value value = Evaluate(*children[0]);
      return runtime_.Item(value, Evaluate(*children[1]));
    }
    case Op::kSlice:
      return EvaluateSlice(expression);
    case Op::kCall:
      return EvaluateCall(expression, Value());
    case Op::kFilter:
      return EvaluateFilter(expression, Value());
    case Op::kTest:
      return EvaluateTest(expression);
    case Op::kNot:
      return Value::Bool(!runtime_.Truthy(Evaluate(*children[0])));
    case Op::kNegate:
    case Op::kPlus:
      return EvaluateSign(expression);
    case Op::kAnd:
    case Op::kOr: {
      Value left = Evaluate(*children[0]);
      const bool decided = runtime_.Truthy(left) == (expression.kind == Op::kOr);
      return decided ? left : Evaluate(*children[1]);
    }
    case Op::kArithmetic: {
      const Value left = Evaluate(*children[0]);
      return runtime_.Arithmetic(expression.op, left, Evaluate(*children[1]));
    }
    case Op::kConcatenate:
      return EvaluateConcatenation(expression);
    case Op::kCompare:
      return EvaluateCompare(expression);
    case Op::kConditional:
      return EvaluateConditional(expression);
  }
  return Value();
}

Value Interpreter::EvaluateName(const Expression& expression) {
  if (const Value* value = FindVariable(expression.name)) return *value;
  return FindGlobal(expression.name);
}

Value Interpreter::EvaluateList(const Expression& expression) {
  std::vector<Value> items;
  items.reserve(expression.children.size());
  for (const ExpressionPtr& child : expression.children) items.push_back(Evaluate(*child));
  return runtime_.List(std::move(items),
                       expression.kind == Op::kList ? jinja::Kind::kList : jinja::Kind::kTuple);
}

Value Interpreter::EvaluateDict(const Expression& expression) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i < expression.children.size(); i += 2) {
    Value key = Evaluate(*expression.children[i]);
    Value value = Evaluate(*expression.children[i + 1]);
    if (!runtime_.ok() || !runtime_.Hashable(key)) return Value();
    dict->Set(std::move(key), std::move(value));
  }
  return runtime_.NewDict(std::move(dict));
}

Value Interpreter::EvaluateSlice(const Expression& expression) {
  const Value value = Evaluate(*expression.children[0]);
  Value bounds[3];
  for (int i = 0; i < 3; ++i) {
    const ExpressionPtr& bound = expression.children[i + 1];
    bounds[i] = bound == nullptr ? Value::None() : Evaluate(*bound);
  }
  return runtime_.Slice(value, bounds[0], bounds[1], bounds[2]);
}

Arguments Interpreter::EvaluateArguments(const Expression& expression) {
  Arguments arguments;
  for (size_t i = 1; i < expression.children.size(); ++i) {
    arguments.positional.push_back(Evaluate(*expression.children[i]));
  }
  for (const auto& [name, child] : expression.named) {
    arguments.named.emplace_back(name, Evaluate(*child));
  }
  return arguments;
}

Value Interpreter::EvaluateCall(const Expression& expression, Value caller) {
  const Value callee = Evaluate(*expression.children[0]);
  Arguments arguments = EvaluateArguments(expression);
  if (!caller.is_undefined()) arguments.named.emplace_back("caller", std::move(caller));
  if (!runtime_.ok()) return Value();
  if (callee.is_undefined()) return runtime_.FailUndefined(callee);
  if (callee.kind() != jinja::Kind::kCallable) {
    return runtime_.Fail(absl::StrCat("'", TypeName(callee), "' object is not callable"));
  }
  runtime_.set_line(expression.line);
  return callee.AsCallable().Call(runtime_, arguments);
}

Value Interpreter::EvaluateFilter(const Expression& expression, Value input) {
  // A block's filters may be chained: its text is what the innermost one gets.
  const Expression* inner = expression.children[0].get();
  if (inner != nullptr) {
    input =
        inner->kind == Op::kFilter ? EvaluateFilter(*inner, std::move(input)) : Evaluate(*inner);
  }
  if (expression.filter == nullptr) {
    return runtime_.Fail(absl::StrCat("no filter is named '", expression.name, "'"));
  }
  Arguments arguments = EvaluateArguments(expression);
  if (!runtime_.ok()) return Value();
  return expression.filter(runtime_, input, arguments);
}

Value Interpreter::EvaluateTest(const Expression& expression) {
  if (expression.children[0] == nullptr) return runtime_.Fail("a block's text has no tests");
  const Value input = Evaluate(*expression.children[0]);
  if (expression.test == nullptr) {
    return runtime_.Fail(absl::StrCat("no test is named '", expression.name, "'"));
  }
  Arguments arguments = EvaluateArguments(expression);
  if (!runtime_.ok()) return Value();
  return Value::Bool(expression.test(runtime_, input, arguments));
}

Value Interpreter::EvaluateSign(const Expression& expression) {
  const Value value = Evaluate(*expression.children[0]);
  if (value.is_undefined()) return runtime_.FailUndefined(value);
  if (!value.is_number()) {
    return runtime_.Fail(absl::StrCat("bad operand type for unary sign: '", TypeName(value), "'"));
  }
  const bool minus = expression.kind == Op::kNegate;
  if (!value.is_integral()) return Value::Float(minus ? -value.AsFloat() : value.AsFloat());
  return runtime_.Arithmetic(minus ? Runtime::Operator::kSub : Runtime::Operator::kAdd,
                             Value::Int(0), value);
}

Value Interpreter::EvaluateConcatenation(const Expression& expression) {
  std::string text;
  for (const ExpressionPtr& child : expression.children) {
    const std::string part = runtime_.ToText(Evaluate(*child));
    if (!runtime_.Charge(static_cast<int64_t>(part.size()))) return Value();
    text += part;
  }
  return runtime_.Text(std::move(text));
}

bool Interpreter::Compare(Expression::Comparison comparison, const Value& a, const Value& b) {
  switch (comparison) {
    case Expression::Comparison::kEq:
      return runtime_.Equal(a, b);
    case Expression::Comparison::kNe:
      return !runtime_.Equal(a, b);
    case Expression::Comparison::kLt:
      return runtime_.Less(a, b);
    case Expression::Comparison::kLe:
      return runtime_.Less(a, b) || runtime_.Equal(a, b);
    case Expression::Comparison::kGt:
      return runtime_.Less(b, a);
    case Expression::Comparison::kGe:
      return runtime_.Less(b, a) || runtime_.Equal(a, b);
    case Expression::Comparison::kIn:
      return runtime_.Contains(b, a);
    case Expression::Comparison::kNotIn:
      return !runtime_.Contains(b, a);
  }
  return false;
}

Value Interpreter::EvaluateCompare(const Expression& expression) {
  Value left = Evaluate(*expression.children[0]);
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    Value right = Evaluate(*expression.children[i + 1]);
    if (!runtime_.ok() || !Compare(expression.comparisons[i], left, right)) {
      return Value::Bool(false);
    }
    left = std::move(right);
  }
  return Value::Bool(true);
}

Value Interpreter::EvaluateConditional(const Expression& expression) {
  if (runtime_.Truthy(Evaluate(*expression.children[0]))) return Evaluate(*expression.children[1]);
  if (expression.children[2] != nullptr) return Evaluate(*expression.children[2]);
  return Value::Undefined(
      "the inline if-expression evaluated to false and no else section was defined.");
}

}  // namespace longhaul::jinja
