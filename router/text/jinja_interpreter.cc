#include "router/text/jinja_interpreter.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace longhaul::jinja {
namespace {

using Op = Expression::Kind;

class Depth {
 public:
  explicit Depth(Runtime& runtime) : runtime_(runtime), ok_(runtime.Enter()) {}
  ~Depth() { runtime_.Leave(); }
  Depth(const Depth&) = delete;
  bool ok() const { return ok_; }

 private:
  Runtime& runtime_;
  const bool ok_;
};

class Macro : public Callable {
 public:
  Macro(Interpreter& interpreter, const MacroDefinition& macro, std::shared_ptr<Scope> scope)
      : interpreter_(interpreter), macro_(macro), scope_(std::move(scope)) {}
  Value Call(Runtime&, Arguments& arguments) const override {
    return interpreter_.CallMacro(macro_, scope_, arguments);
  }

 private:
  Interpreter& interpreter_;
  const MacroDefinition& macro_;
  const std::shared_ptr<Scope> scope_;
};

}  // namespace

const Value* Scope::Find(absl::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [key, value] : scope->variables) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Scope::Set(absl::string_view name, Value value) {
  for (auto& [key, old] : variables) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  variables.emplace_back(std::string(name), std::move(value));
}

Interpreter::Interpreter(Runtime& runtime)
    : runtime_(runtime), scope_(std::make_shared<Scope>(nullptr)) {}

Interpreter::~Interpreter() {
  for (const std::shared_ptr<Scope>& scope : macro_scopes_) scope->variables.clear();
}

std::string Interpreter::Run(const Body& body) {
  std::string output;
  output_ = &output;
  Execute(body);
  output_ = nullptr;
  return output;
}

void Interpreter::Print(absl::string_view text) {
  if (!runtime_.Charge(static_cast<int64_t>(text.size()))) return;
  output_->append(text.data(), text.size());
  if (static_cast<int64_t>(output_->size()) > runtime_.limits().output_bytes_max) {
    runtime_.Fail(
        absl::StrCat("the output is longer than ", runtime_.limits().output_bytes_max, " bytes"));
  }
}

Interpreter::Flow Interpreter::Execute(const Body& body) {
  for (const std::unique_ptr<Statement>& statement : body) {
    const Flow flow = Execute(*statement);
    if (flow != Flow::kNext) return flow;
    if (!runtime_.ok()) break;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::Execute(const Statement& statement) {
  Depth depth(runtime_);
  if (!depth.ok() || !runtime_.Step()) return Flow::kNext;
  runtime_.set_line(statement.line);
  switch (statement.kind) {
    case Statement::Kind::kData:
      Print(statement.text);
      break;
    case Statement::Kind::kOutput: {
      const Value value = Evaluate(*statement.expressions[0]);
      if (value.is_string()) {
        Print(value.AsString());
      } else {
        Print(runtime_.ToText(value));
      }
      break;
    }
    case Statement::Kind::kIf:
      return ExecuteIf(statement);
    case Statement::Kind::kFor:
      return ExecuteFor(statement);
    case Statement::Kind::kSet:
      Assign(statement.targets[0], Evaluate(*statement.expressions[0]));
      break;
    case Statement::Kind::kSetBlock:
    case Statement::Kind::kFilterBlock: {
      Value text = runtime_.Text(Capture(statement.bodies[0], std::make_shared<Scope>(scope_)));
      if (statement.expressions[0] != nullptr) {
        text = EvaluateFilter(*statement.expressions[0], std::move(text));
      }
      if (statement.kind == Statement::Kind::kSetBlock) {
        Assign(statement.targets[0], std::move(text));
      } else {
        Print(runtime_.ToText(text));
      }
      break;
    }
    case Statement::Kind::kMacro:
      scope_->Set(statement.macro->name, MakeMacro(*statement.macro));
      break;
    case Statement::Kind::kCall:
      ExecuteCall(statement);
      break;
    case Statement::Kind::kWith:
      return ExecuteWith(statement);
    case Statement::Kind::kGroup:
      return Execute(statement.bodies[0]);
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteIf(const Statement& statement) {
  for (size_t i = 0; i < statement.expressions.size(); ++i) {
    const bool holds = runtime_.Truthy(Evaluate(*statement.expressions[i]));
    if (!runtime_.ok()) return Flow::kNext;
    if (holds) return Execute(statement.bodies[i]);
  }
  const bool has_else = statement.bodies.size() > statement.expressions.size();
  return has_else ? Execute(statement.bodies.back()) : Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteInScope(const Body& body, std::shared_ptr<Scope> scope) {
  std::shared_ptr<Scope> outer = std::exchange(scope_, std::move(scope));
  const Flow flow = Execute(body);
  scope_ = std::move(outer);
  return flow;
}

Interpreter::Flow Interpreter::ExecuteFor(const Statement& statement) {
  std::vector<Value> items = runtime_.Iterate(Evaluate(*statement.expressions[0]));
  const Target& target = statement.targets[0];
  if (const Expression* filter = statement.expressions[1].get()) {
    std::vector<Value> kept;
    for (Value& item : items) {
      std::shared_ptr<Scope> outer = scope_;
      scope_ = std::make_shared<Scope>(outer);
      Assign(target, item);
      if (runtime_.Truthy(Evaluate(*filter))) kept.push_back(std::move(item));
      scope_ = std::move(outer);
      if (!runtime_.ok()) return Flow::kNext;
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    return ExecuteInScope(statement.bodies[1], std::make_shared<Scope>(scope_));
  }
  auto sequence = std::make_shared<Sequence>(std::move(items));
  if (sequence->depth > runtime_.limits().container_depth_max) {
    runtime_.Fail("a loop's elements nest too deep");
  }
  for (size_t i = 0; i < sequence->items.size() && runtime_.ok() && runtime_.Step(); ++i) {
    std::shared_ptr<Scope> outer = scope_;
    scope_ = std::make_shared<Scope>(outer);
    scope_->Set("loop", Value::Of(jinja::Kind::kLoop, std::make_shared<Loop>(sequence, i)));
    Assign(target, sequence->items[i]);
    const Flow flow = Execute(statement.bodies[0]);
    scope_ = std::move(outer);
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteWith(const Statement& statement) {
  // The values are computed outside: none of them sees the others.
  auto scope = std::make_shared<Scope>(scope_);
  std::vector<Value> values;
  for (const ExpressionPtr& expression : statement.expressions) {
    values.push_back(Evaluate(*expression));
  }
  std::shared_ptr<Scope> outer = std::exchange(scope_, scope);
  for (size_t i = 0; i < values.size(); ++i) Assign(statement.targets[i], std::move(values[i]));
  scope_ = std::move(outer);
  return ExecuteInScope(statement.bodies[0], std::move(scope));
}

void Interpreter::ExecuteCall(const Statement& statement) {
  const Value result = EvaluateCall(*statement.expressions[0], MakeMacro(*statement.macro));
  Print(runtime_.ToText(result));
}

std::string Interpreter::Capture(const Body& body, std::shared_ptr<Scope> scope) {
  std::string text;
  std::string* outer = std::exchange(output_, &text);
  ExecuteInScope(body, std::move(scope));
  output_ = outer;
  return text;
}

void Interpreter::Assign(const Target& target, Value value) {
  if (!runtime_.ok()) return;
  switch (target.kind) {
    case Target::Kind::kName:
      scope_->Set(target.name, std::move(value));
      break;
    case Target::Kind::kAttribute: {
      const Value* space = scope_->Find(target.name);
      if (space == nullptr || space->kind() != jinja::Kind::kNamespace) {
        runtime_.Fail(
            absl::StrCat("cannot assign attribute on non-namespace object '", target.name, "'"));
        return;
      }
      space->AsNamespace().attributes[target.attribute] = std::move(value);
      break;
    }
    case Target::Kind::kTuple: {
      const std::vector<Value> items = runtime_.Iterate(value);
      if (items.size() != target.targets.size()) {
        runtime_.Fail(absl::StrCat("cannot unpack ", items.size(), " values into ",
                                   target.targets.size(), " names"));
        return;
      }
      for (size_t i = 0; i < items.size(); ++i) Assign(target.targets[i], items[i]);
      break;
    }
  }
}

Value Interpreter::MakeMacro(const MacroDefinition& macro) {
  if (macro_scopes_.empty() || macro_scopes_.back() != scope_) macro_scopes_.push_back(scope_);
  return Value::Of(jinja::Kind::kCallable, std::make_shared<Macro>(*this, macro, scope_));
}

Value Interpreter::CallMacro(const MacroDefinition& macro, const std::shared_ptr<Scope>& scope,
                             Arguments& arguments) {
  Depth depth(runtime_);
  if (!depth.ok()) return Value();
  auto inner = std::make_shared<Scope>(scope);
  std::shared_ptr<Scope> outer = std::exchange(scope_, inner);
  Value caller;
  if (arguments.Take(arguments.positional.size(), "caller", &caller)) {
    inner->Set("caller", std::move(caller));
  }
  const size_t required = macro.parameters.size() - macro.defaults.size();
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    Value value;
    if (!arguments.Take(i, macro.parameters[i], &value)) {
      value = i >= required ? Evaluate(*macro.defaults[i - required])
                            : Value::Undefined(absl::StrCat("parameter '", macro.parameters[i],
                                                            "' was not provided"));
    }
    inner->Set(macro.parameters[i], std::move(value));
  }
  arguments.Finish(runtime_, macro.name);
  scope_ = std::move(outer);
  if (!runtime_.ok()) return Value();
  return runtime_.Text(Capture(macro.body, std::move(inner)));
}

Value Interpreter::Evaluate(const Expression& expression) {
  Depth depth(runtime_);
  if (!depth.ok() || !runtime_.Step()) return Value();
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
  if (const Value* value = scope_->Find(expression.name)) return *value;
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
