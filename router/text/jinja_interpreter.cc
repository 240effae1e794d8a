#include "router/text/jinja_interpreter.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace longhaul::jinja {
namespace {

// Comparing this many names takes about as long as evaluating a node.
constexpr int64_t kVariablesPerStep = 16;

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

const Value* Scope::Find(absl::string_view name, int64_t* visited) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [key, value] : scope->variables) {
      ++*visited;
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
  Runtime::Level level(runtime_);
  if (!level.ok() || !runtime_.Step()) return Flow::kNext;
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
      if (!runtime_.Step(static_cast<int64_t>(scope_->variables.size()) / kVariablesPerStep))
        return;
      scope_->Set(target.name, std::move(value));
      break;
    case Target::Kind::kAttribute: {
      const Value* space = FindVariable(target.name);
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

const Value* Interpreter::FindVariable(absl::string_view name) {
  int64_t visited = 0;
  const Value* value = scope_->Find(name, &visited);
  return runtime_.Step(visited / kVariablesPerStep) ? value : nullptr;
}

Value Interpreter::MakeMacro(const MacroDefinition& macro) {
  if (macro_scopes_.empty() || macro_scopes_.back() != scope_) macro_scopes_.push_back(scope_);
  return Value::Of(jinja::Kind::kCallable, std::make_shared<Macro>(*this, macro, scope_));
}

Value Interpreter::CallMacro(const MacroDefinition& macro, const std::shared_ptr<Scope>& scope,
                             Arguments& arguments) {
  Runtime::Level level(runtime_);
  if (!level.ok()) return Value();
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

}  // namespace longhaul::jinja
