// Runs a parsed template once. Holds the variables; values and limits are the Runtime's.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "router/text/jinja_ast.h"
#include "router/text/jinja_runtime.h"

namespace longhaul::jinja {

// The variables of a template, a loop's turn, a macro's call, ...
struct Scope {
  explicit Scope(std::shared_ptr<Scope> p) : parent(std::move(p)) {}
  // Here and outwards. Adds to `visited` how many variables it looked at.
  const Value* Find(absl::string_view name, int64_t* visited) const;
  void Set(absl::string_view name, Value value);

  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> variables;
};

class Interpreter {
 public:
  explicit Interpreter(Runtime& runtime);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  void SetVariable(absl::string_view name, Value value) { scope_->Set(name, std::move(value)); }
  // The template's output; meaningless once the runtime has an error.
  std::string Run(const Body& body);

  // For macros, which are values.
  Value CallMacro(const MacroDefinition& macro, const std::shared_ptr<Scope>& scope,
                  Arguments& arguments);

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };

  Flow Execute(const Body& body);
  Flow Execute(const Statement& statement);
  Flow ExecuteIf(const Statement& statement);
  Flow ExecuteFor(const Statement& statement);
  void ExecuteCall(const Statement& statement);
  Flow ExecuteWith(const Statement& statement);
  Flow ExecuteInScope(const Body& body, std::shared_ptr<Scope> scope);
  // What `body` prints, in a scope of its own.
  std::string Capture(const Body& body, std::shared_ptr<Scope> scope);
  void Print(absl::string_view text);
  void Assign(const Target& target, Value value);
  // Scope::Find, with its time counted.
  const Value* FindVariable(absl::string_view name);
  Value MakeMacro(const MacroDefinition& macro);

  Value Evaluate(const Expression& expression);
  Value EvaluateName(const Expression& expression);
  Value EvaluateList(const Expression& expression);
  Value EvaluateDict(const Expression& expression);
  Value EvaluateSlice(const Expression& expression);
  Value EvaluateCall(const Expression& expression, Value caller);
  Value EvaluateFilter(const Expression& expression, Value input);
  Value EvaluateTest(const Expression& expression);
  Value EvaluateSign(const Expression& expression);
  Value EvaluateConcatenation(const Expression& expression);
  Value EvaluateCompare(const Expression& expression);
  bool Compare(Expression::Comparison comparison, const Value& a, const Value& b);
  Value EvaluateConditional(const Expression& expression);
  Arguments EvaluateArguments(const Expression& expression);

  Runtime& runtime_;
  std::shared_ptr<Scope> scope_;
  std::string* output_ = nullptr;
  // A macro holds the scope it was made in, which may hold the macro: emptied at the end.
  std::vector<std::shared_ptr<Scope>> macro_scopes_;
};

}  // namespace longhaul::jinja
