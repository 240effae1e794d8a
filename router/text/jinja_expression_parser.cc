#include "router/text/jinja_expression_parser.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace longhaul::jinja {
namespace {

using Node = Expression::Kind;
using TokenKind = Token::Kind;

constexpr int kDepthMax = 150;   // of an expression's tree
constexpr int kNestingMax = 60;  // of brackets

template <typename... Nodes>
std::vector<ExpressionPtr> Children(Nodes... nodes) {
  std::vector<ExpressionPtr> children;
  (children.push_back(std::move(nodes)), ...);
  return children;
}

}  // namespace

const Token& ExpressionParser::Next() {
  const Token& token = tokens_[at_];
  if (token.kind != TokenKind::kEnd) ++at_;
  return token;
}

bool ExpressionParser::AtOperator(absl::string_view text) const {
  return current().kind == TokenKind::kOperator && current().text == text;
}

bool ExpressionParser::AtName(absl::string_view text) const {
  return current().kind == TokenKind::kName && current().text == text;
}

bool ExpressionParser::SkipOperator(absl::string_view text) {
  const bool skip = AtOperator(text);
  if (skip) Next();
  return skip;
}

bool ExpressionParser::SkipName(absl::string_view text) {
  const bool skip = AtName(text);
  if (skip) Next();
  return skip;
}

absl::Status ExpressionParser::ExpectOperator(absl::string_view text) {
  return SkipOperator(text) ? absl::OkStatus() : Unexpected(absl::StrCat("'", text, "'"));
}

absl::StatusOr<std::string> ExpressionParser::ExpectName() {
  if (current().kind != TokenKind::kName) return Unexpected("a name");
  return Next().text;
}

absl::Status ExpressionParser::Unexpected(absl::string_view wanted) const {
  const Token& token = current();
  std::string got = absl::StrCat("'", token.text.substr(0, 60), "'");
  if (token.kind == TokenKind::kEnd) got = "the end of the template";
  if (token.kind == TokenKind::kBlockEnd) got = "'%}'";
  if (token.kind == TokenKind::kOutputEnd) got = "'}}'";
  return TemplateError(token.line, absl::StrCat("expected ", wanted, ", got ", got));
}

absl::Status ExpressionParser::CheckDepth(Expression* node) const {
  for (const ExpressionPtr& child : node->children) {
    if (child != nullptr) node->depth = std::max(node->depth, child->depth + 1);
  }
  for (const auto& [name, child] : node->named) {
    node->depth = std::max(node->depth, child->depth + 1);
  }
  if (node->depth <= kDepthMax) return absl::OkStatus();
  return TemplateError(node->line,
                       absl::StrCat("an expression is deeper than ", kDepthMax, " operations"));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::Make(Node kind,
                                                     std::vector<ExpressionPtr> children) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = current().line;
  node->children = std::move(children);
  LH_RETURN_IF_ERROR(CheckDepth(node.get()));
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseExpression(bool conditional) {
  if (nesting_ >= kNestingMax) {
    return TemplateError(current().line,
                         absl::StrCat("brackets nest deeper than ", kNestingMax, " levels"));
  }
  ++nesting_;
  absl::StatusOr<ExpressionPtr> node = conditional ? ParseConditional() : ParseOr();
  --nesting_;
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTuple(bool conditional) {
  LH_ASSIGN_OR_RETURN(ExpressionPtr first, ParseExpression(conditional));
  if (!AtOperator(",")) return first;
  std::vector<ExpressionPtr> items = Children(std::move(first));
  while (SkipOperator(",")) {
    const TokenKind kind = current().kind;
    if (kind == TokenKind::kBlockEnd || kind == TokenKind::kOutputEnd || AtOperator(")")) break;
    LH_ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression(conditional));
    items.push_back(std::move(item));
  }
  return Make(Node::kTuple, std::move(items));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConditional() {
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, ParseOr());
  while (SkipName("if")) {
    LH_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (SkipName("else")) {
      LH_ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    LH_ASSIGN_OR_RETURN(
        node, Make(Node::kConditional,
                   Children(std::move(condition), std::move(node), std::move(otherwise))));
  }
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseOr() {
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, ParseAnd());
  while (SkipName("or")) {
    LH_ASSIGN_OR_RETURN(ExpressionPtr right, ParseAnd());
    LH_ASSIGN_OR_RETURN(node, Make(Node::kOr, Children(std::move(node), std::move(right))));
  }
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseAnd() {
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, ParseNot());
  while (SkipName("and")) {
    LH_ASSIGN_OR_RETURN(ExpressionPtr right, ParseNot());
    LH_ASSIGN_OR_RETURN(node, Make(Node::kAnd, Children(std::move(node), std::move(right))));
  }
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseNot() {
  int nots = 0;
  while (SkipName("not")) ++nots;
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, ParseCompare());
  for (; nots > 0; --nots) {
    LH_ASSIGN_OR_RETURN(node, Make(Node::kNot, Children(std::move(node))));
  }
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseCompare() {
  using Comparison = Expression::Comparison;
  static constexpr std::pair<const char*, Comparison> kSymbols[] = {
      {"==", Comparison::kEq}, {"!=", Comparison::kNe}, {"<", Comparison::kLt},
      {"<=", Comparison::kLe}, {">", Comparison::kGt},  {">=", Comparison::kGe}};
  LH_ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
  std::vector<ExpressionPtr> operands = Children(std::move(first));
  std::vector<Comparison> comparisons;
  for (;;) {
    const auto* symbol = std::find_if(std::begin(kSymbols), std::end(kSymbols),
                                      [&](const auto& s) { return AtOperator(s.first); });
    if (symbol != std::end(kSymbols)) {
      Next();
      comparisons.push_back(symbol->second);
    } else if (SkipName("in")) {
      comparisons.push_back(Comparison::kIn);
    } else if (AtName("not") && tokens_[at_ + 1].kind == TokenKind::kName &&
               tokens_[at_ + 1].text == "in") {
      Next();
      Next();
      comparisons.push_back(Comparison::kNotIn);
    } else {
      break;
    }
    LH_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
    operands.push_back(std::move(operand));
  }
  if (comparisons.empty()) return std::move(operands.front());
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, Make(Node::kCompare, std::move(operands)));
  node->comparisons = std::move(comparisons);
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSum() {
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, ParseConcatenation());
  while (AtOperator("+") || AtOperator("-")) {
    const auto op = Next().text == "+" ? Runtime::Operator::kAdd : Runtime::Operator::kSub;
    LH_ASSIGN_OR_RETURN(ExpressionPtr right, ParseConcatenation());
    LH_ASSIGN_OR_RETURN(node, Make(Node::kArithmetic, Children(std::move(node), std::move(right))));
    node->op = op;
  }
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseConcatenation() {
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, ParseProduct());
  if (!AtOperator("~")) return node;
  std::vector<ExpressionPtr> parts = Children(std::move(node));
  while (SkipOperator("~")) {
    LH_ASSIGN_OR_RETURN(ExpressionPtr part, ParseProduct());
    parts.push_back(std::move(part));
  }
  return Make(Node::kConcatenate, std::move(parts));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseProduct() {
  using Operator = Runtime::Operator;
  static constexpr std::pair<const char*, Operator> kSymbols[] = {{"*", Operator::kMul},
                                                                  {"/", Operator::kDiv},
                                                                  {"//", Operator::kFloorDiv},
                                                                  {"%", Operator::kMod}};
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, ParsePower());
  for (;;) {
    const auto* symbol = std::find_if(std::begin(kSymbols), std::end(kSymbols),
                                      [&](const auto& s) { return AtOperator(s.first); });
    if (symbol == std::end(kSymbols)) return node;
    Next();
    LH_ASSIGN_OR_RETURN(ExpressionPtr right, ParsePower());
    LH_ASSIGN_OR_RETURN(node, Make(Node::kArithmetic, Children(std::move(node), std::move(right))));
    node->op = symbol->second;
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePower() {
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, ParseUnary(true));
  while (SkipOperator("**")) {
    LH_ASSIGN_OR_RETURN(ExpressionPtr right, ParseUnary(true));
    LH_ASSIGN_OR_RETURN(node, Make(Node::kArithmetic, Children(std::move(node), std::move(right))));
    node->op = Runtime::Operator::kPow;
  }
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseUnary(bool with_filters) {
  ExpressionPtr node;
  if (AtOperator("-") || AtOperator("+")) {
    std::vector<Node> signs;
    while (AtOperator("-") || AtOperator("+")) {
      signs.push_back(Next().text == "-" ? Node::kNegate : Node::kPlus);
    }
    LH_ASSIGN_OR_RETURN(node, ParsePrimary());
    LH_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
    for (; !signs.empty(); signs.pop_back()) {
      LH_ASSIGN_OR_RETURN(node, Make(signs.back(), Children(std::move(node))));
    }
  } else {
    LH_ASSIGN_OR_RETURN(node, ParsePrimary());
    LH_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  }
  return with_filters ? ParseFilters(std::move(node), false)
                      : absl::StatusOr<ExpressionPtr>(std::move(node));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePrimary() {
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, Make(Node::kConstant, {}));
  switch (current().kind) {
    case TokenKind::kName: {
      const std::string& name = Next().text;
      if (name == "true" || name == "True") {
        node->constant = Value::Bool(true);
      } else if (name == "false" || name == "False") {
        node->constant = Value::Bool(false);
      } else if (name == "none" || name == "None") {
        node->constant = Value::None();
      } else {
        node->kind = Node::kName;
        node->name = name;
      }
      return node;
    }
    case TokenKind::kString: {
      std::string text;
      while (current().kind == TokenKind::kString) text += Next().text;
      node->constant = Value::String(std::move(text));
      return node;
    }
    case TokenKind::kInteger: {
      int64_t number = 0;
      (void)absl::SimpleAtoi(Next().text, &number);  // the lexer made sure that it fits
      node->constant = Value::Int(number);
      return node;
    }
    case TokenKind::kFloat: {
      double number = 0;
      (void)absl::SimpleAtod(Next().text, &number);
      node->constant = Value::Float(number);
      return node;
    }
    default:
      if (AtOperator("(")) return ParseParentheses();
      if (AtOperator("[") || AtOperator("{")) return ParseListOrDict();
      return Unexpected("an expression");
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseParentheses() {
  LH_RETURN_IF_ERROR(ExpectOperator("("));
  if (SkipOperator(")")) return Make(Node::kTuple, {});
  LH_ASSIGN_OR_RETURN(ExpressionPtr node, ParseTuple(true));
  LH_RETURN_IF_ERROR(ExpectOperator(")"));
  return node;
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseListOrDict() {
  const bool is_dict = Next().text == "{";
  const absl::string_view close = is_dict ? "}" : "]";
  std::vector<ExpressionPtr> children;
  while (!AtOperator(close)) {
    if (!children.empty()) {
      LH_RETURN_IF_ERROR(ExpectOperator(","));
      if (AtOperator(close)) break;
    }
    LH_ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
    children.push_back(std::move(item));
    if (!is_dict) continue;
    LH_RETURN_IF_ERROR(ExpectOperator(":"));
    LH_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    children.push_back(std::move(value));
  }
  LH_RETURN_IF_ERROR(ExpectOperator(close));
  return Make(is_dict ? Node::kDict : Node::kList, std::move(children));
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr node) {
  for (;;) {
    if (SkipOperator(".")) {
      if (current().kind == TokenKind::kInteger) {
        LH_ASSIGN_OR_RETURN(ExpressionPtr index, ParsePrimary());
        LH_ASSIGN_OR_RETURN(node, Make(Node::kItem, Children(std::move(node), std::move(index))));
        continue;
      }
      LH_ASSIGN_OR_RETURN(std::string name, ExpectName());
      LH_ASSIGN_OR_RETURN(node, Make(Node::kAttribute, Children(std::move(node))));
      node->name = std::move(name);
    } else if (SkipOperator("[")) {
      LH_ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (AtOperator("(")) {
      LH_ASSIGN_OR_RETURN(node, Make(Node::kCall, Children(std::move(node))));
      LH_RETURN_IF_ERROR(ParseCallArguments(node.get()));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseSubscript(ExpressionPtr node) {
  ExpressionPtr start;
  if (!AtOperator(":")) {
    LH_ASSIGN_OR_RETURN(start, ParseTuple(true));
    if (SkipOperator("]")) {
      return Make(Node::kItem, Children(std::move(node), std::move(start)));
    }
  }
  LH_RETURN_IF_ERROR(ExpectOperator(":"));
  ExpressionPtr stop;
  ExpressionPtr step;
  if (!AtOperator(":") && !AtOperator("]")) {
    LH_ASSIGN_OR_RETURN(stop, ParseExpression());
  }
  if (SkipOperator(":") && !AtOperator("]")) {
    LH_ASSIGN_OR_RETURN(step, ParseExpression());
  }
  LH_RETURN_IF_ERROR(ExpectOperator("]"));
  return Make(Node::kSlice,
              Children(std::move(node), std::move(start), std::move(stop), std::move(step)));
}

absl::Status ExpressionParser::ParseCallArguments(Expression* call) {
  LH_RETURN_IF_ERROR(ExpectOperator("("));
  bool first = true;
  while (!AtOperator(")")) {
    if (!first) {
      LH_RETURN_IF_ERROR(ExpectOperator(","));
      if (AtOperator(")")) break;
    }
    first = false;
    if (AtOperator("*") || AtOperator("**")) {
      return TemplateError(current().line, "arguments with * or ** are not supported");
    }
    const bool is_named = current().kind == TokenKind::kName &&
                          tokens_[at_ + 1].kind == TokenKind::kOperator &&
                          tokens_[at_ + 1].text == "=";
    std::string name;
    if (is_named) {
      name = Next().text;
      Next();
    } else if (!call->named.empty()) {
      return Unexpected("a keyword argument");
    }
    LH_ASSIGN_OR_RETURN(ExpressionPtr argument, ParseExpression());
    if (is_named) {
      call->named.emplace_back(std::move(name), std::move(argument));
    } else {
      call->children.push_back(std::move(argument));
    }
  }
  LH_RETURN_IF_ERROR(ExpectOperator(")"));
  return CheckDepth(call);
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseFilters(ExpressionPtr node, bool inside_tag) {
  for (;;) {
    if (std::exchange(inside_tag, false) || SkipOperator("|")) {
      LH_ASSIGN_OR_RETURN(std::string name, ExpectName());
      while (SkipOperator(".")) {
        LH_ASSIGN_OR_RETURN(std::string part, ExpectName());
        absl::StrAppend(&name, ".", part);
      }
      LH_ASSIGN_OR_RETURN(node, Make(Node::kFilter, Children(std::move(node))));
      node->filter = FindFilter(name);
      node->name = std::move(name);
      if (AtOperator("(")) LH_RETURN_IF_ERROR(ParseCallArguments(node.get()));
    } else if (SkipName("is")) {
      LH_ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (AtOperator("(") && node != nullptr) {
      LH_ASSIGN_OR_RETURN(node, Make(Node::kCall, Children(std::move(node))));
      LH_RETURN_IF_ERROR(ParseCallArguments(node.get()));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr node) {
  const bool negated = SkipName("not");
  LH_ASSIGN_OR_RETURN(std::string name, ExpectName());
  LH_ASSIGN_OR_RETURN(node, Make(Node::kTest, Children(std::move(node))));
  node->test = FindTest(name);
  node->name = std::move(name);
  const Token& next = current();
  const bool starts_argument =
      next.kind == TokenKind::kString || next.kind == TokenKind::kInteger ||
      next.kind == TokenKind::kFloat || AtOperator("[") || AtOperator("{") ||
      (next.kind == TokenKind::kName && !AtName("else") && !AtName("or") && !AtName("and"));
  if (AtOperator("(")) {
    LH_RETURN_IF_ERROR(ParseCallArguments(node.get()));
  } else if (starts_argument) {
    if (AtName("is")) return TemplateError(next.line, "tests cannot be chained with 'is'");
    LH_ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    LH_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    node->children.push_back(std::move(argument));
    LH_RETURN_IF_ERROR(CheckDepth(node.get()));
  }
  if (!negated) return node;
  return Make(Node::kNot, Children(std::move(node)));
}

}  // namespace longhaul::jinja
