// Jinja's expression grammar, by recursive descent over the tokens of a template.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "router/text/jinja_ast.h"
#include "router/text/jinja_lexer.h"

namespace longhaul::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  // With `conditional`, "a if b else c" is one expression.
  absl::StatusOr<ExpressionPtr> ParseExpression(bool conditional = true);
  // "a, b" is a tuple, "a" is a.
  absl::StatusOr<ExpressionPtr> ParseTuple(bool conditional);
  // "| filter ..." or, with `inside_tag`, "filter ..." first; null when there is none.
  absl::StatusOr<ExpressionPtr> ParseFilters(ExpressionPtr input, bool inside_tag);

  const Token& current() const { return tokens_[at_]; }
  const Token& Next();  // returns the current token and moves on; never beyond the end
  bool AtOperator(absl::string_view text) const;
  bool AtName(absl::string_view text) const;
  bool SkipOperator(absl::string_view text);
  bool SkipName(absl::string_view text);
  absl::Status ExpectOperator(absl::string_view text);
  absl::StatusOr<std::string> ExpectName();
  absl::Status Unexpected(absl::string_view wanted) const;

 private:
  absl::StatusOr<ExpressionPtr> ParseConditional();
  absl::StatusOr<ExpressionPtr> ParseOr();
  absl::StatusOr<ExpressionPtr> ParseAnd();
  absl::StatusOr<ExpressionPtr> ParseNot();
  absl::StatusOr<ExpressionPtr> ParseCompare();
  absl::StatusOr<ExpressionPtr> ParseSum();
  absl::StatusOr<ExpressionPtr> ParseConcatenation();
  absl::StatusOr<ExpressionPtr> ParseProduct();
  absl::StatusOr<ExpressionPtr> ParsePower();
  absl::StatusOr<ExpressionPtr> ParseUnary(bool with_filters);
  absl::StatusOr<ExpressionPtr> ParsePrimary();
  absl::StatusOr<ExpressionPtr> ParseParentheses();
  absl::StatusOr<ExpressionPtr> ParseListOrDict();
  absl::StatusOr<ExpressionPtr> ParsePostfix(ExpressionPtr node);
  absl::StatusOr<ExpressionPtr> ParseSubscript(ExpressionPtr node);
  absl::StatusOr<ExpressionPtr> ParseTest(ExpressionPtr node);
  absl::Status ParseCallArguments(Expression* call);

  absl::StatusOr<ExpressionPtr> Make(Expression::Kind kind, std::vector<ExpressionPtr> children);
  // Makes sure that the tree's depth, and so the depth of any walk over it, is bounded.
  absl::Status CheckDepth(Expression* node) const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace longhaul::jinja
