#include "router/text/jinja_parser.h"

#include <algorithm>
#include <initializer_list>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "router/text/jinja_expression_parser.h"
#include "router/text/jinja_lexer.h"

namespace longhaul::jinja {
namespace {

using Kind = Statement::Kind;
using TokenKind = Token::Kind;

constexpr int kNestingMax = 50;  // of statements

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : in_(std::move(tokens)) {}

  absl::StatusOr<Body> Run() {
    LH_ASSIGN_OR_RETURN(Body body, ParseBody({}));
    return body;
  }

 private:
  using StatementPtr = std::unique_ptr<Statement>;

  StatementPtr New(Kind kind) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = in_.current().line;
    return statement;
  }

  absl::Status ExpectBlockEnd() {
    if (in_.current().kind != TokenKind::kBlockEnd) return in_.Unexpected("'%}'");
    in_.Next();
    return absl::OkStatus();
  }

  // Statements up to a block tag that starts with one of `ends`; that tag's begin is skipped, its
  // name is the current token. Without `ends`: up to the end of the template.
  absl::StatusOr<Body> ParseBody(std::initializer_list<absl::string_view> ends) {
    if (nesting_ >= kNestingMax) {
      return TemplateError(in_.current().line,
                           absl::StrCat("blocks nest deeper than ", kNestingMax, " levels"));
    }
    ++nesting_;
    Body body;
    for (;;) {
      const Token& token = in_.current();
      if (token.kind == TokenKind::kEnd) {
        if (ends.size() == 0) break;
        return in_.Unexpected(absl::StrCat("'", *(ends.end() - 1), "'"));
      }
      if (token.kind == TokenKind::kData) {
        body.push_back(New(Kind::kData));
        body.back()->text = in_.Next().text;
      } else if (token.kind == TokenKind::kOutputBegin) {
        in_.Next();
        StatementPtr output = New(Kind::kOutput);
        LH_ASSIGN_OR_RETURN(ExpressionPtr value, in_.ParseTuple(true));
        output->expressions.push_back(std::move(value));
        if (in_.current().kind != TokenKind::kOutputEnd) return in_.Unexpected("'}}'");
        in_.Next();
        body.push_back(std::move(output));
      } else {
        in_.Next();
        if (std::any_of(ends.begin(), ends.end(),
                        [&](absl::string_view end) { return in_.AtName(end); })) {
          break;
        }
        LH_ASSIGN_OR_RETURN(StatementPtr statement, ParseStatement());
        body.push_back(std::move(statement));
      }
    }
    --nesting_;
    return body;
  }

  // A body and its end tag.
  absl::StatusOr<Body> ParseWholeBody(absl::string_view end) {
    LH_RETURN_IF_ERROR(ExpectBlockEnd());
    LH_ASSIGN_OR_RETURN(Body body, ParseBody({end}));
    in_.Next();
    LH_RETURN_IF_ERROR(ExpectBlockEnd());
    return body;
  }

  absl::StatusOr<StatementPtr> ParseStatement() {
    const int line = in_.current().line;
    LH_ASSIGN_OR_RETURN(const std::string name, in_.ExpectName());
    if (name == "if") return ParseIf();
    if (name == "for") return ParseFor();
    if (name == "set") return ParseSet();
    if (name == "macro") return ParseMacro();
    if (name == "call") return ParseCall();
    if (name == "filter") return ParseFilterBlock();
    if (name == "with") return ParseWith();
    if (name == "generation") {  // marks what the model wrote, for training
      StatementPtr group = New(Kind::kGroup);
      LH_ASSIGN_OR_RETURN(Body body, ParseWholeBody("endgeneration"));
      group->bodies.push_back(std::move(body));
      return group;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) {
        return TemplateError(line, absl::StrCat("'", name, "' outside of a loop"));
      }
      StatementPtr jump = New(name == "break" ? Kind::kBreak : Kind::kContinue);
      LH_RETURN_IF_ERROR(ExpectBlockEnd());
      return jump;
    }
    return TemplateError(line, absl::StrCat("the tag '", name.substr(0, 60), "' is not supported"));
  }

  absl::StatusOr<StatementPtr> ParseIf() {
    StatementPtr statement = New(Kind::kIf);
    for (;;) {
      LH_ASSIGN_OR_RETURN(ExpressionPtr condition, in_.ParseTuple(false));
      statement->expressions.push_back(std::move(condition));
      LH_RETURN_IF_ERROR(ExpectBlockEnd());
      LH_ASSIGN_OR_RETURN(Body body, ParseBody({"elif", "else", "endif"}));
      statement->bodies.push_back(std::move(body));
      if (!in_.SkipName("elif")) break;
    }
    if (in_.SkipName("else")) {
      LH_ASSIGN_OR_RETURN(Body body, ParseWholeBody("endif"));
      statement->bodies.push_back(std::move(body));
      return statement;
    }
    in_.Next();
    LH_RETURN_IF_ERROR(ExpectBlockEnd());
    return statement;
  }

  absl::StatusOr<StatementPtr> ParseFor() {
    StatementPtr statement = New(Kind::kFor);
    LH_ASSIGN_OR_RETURN(Target target, ParseTarget(false));
    statement->targets.push_back(std::move(target));
    if (!in_.SkipName("in")) return in_.Unexpected("'in'");
    LH_ASSIGN_OR_RETURN(ExpressionPtr items, in_.ParseTuple(false));
    statement->expressions.push_back(std::move(items));
    statement->expressions.emplace_back();
    if (in_.SkipName("if")) {
      LH_ASSIGN_OR_RETURN(statement->expressions.back(), in_.ParseExpression());
    }
    if (in_.AtName("recursive")) {
      return TemplateError(in_.current().line, "recursive loops are not supported");
    }
    LH_RETURN_IF_ERROR(ExpectBlockEnd());
    ++loops_;
    LH_ASSIGN_OR_RETURN(Body body, ParseBody({"else", "endfor"}));
    --loops_;
    statement->bodies.push_back(std::move(body));
    statement->bodies.emplace_back();
    if (in_.SkipName("else")) {
      LH_ASSIGN_OR_RETURN(statement->bodies.back(), ParseWholeBody("endfor"));
      return statement;
    }
    in_.Next();
    LH_RETURN_IF_ERROR(ExpectBlockEnd());
    return statement;
  }

  absl::StatusOr<Target> ParseOneTarget(bool attributes) {
    Target target;
    if (in_.SkipOperator("(")) {
      LH_ASSIGN_OR_RETURN(target, ParseTarget(attributes));
      LH_RETURN_IF_ERROR(in_.ExpectOperator(")"));
      return target;
    }
    LH_ASSIGN_OR_RETURN(target.name, in_.ExpectName());
    if (attributes && in_.SkipOperator(".")) {
      target.kind = Target::Kind::kAttribute;
      LH_ASSIGN_OR_RETURN(target.attribute, in_.ExpectName());
    }
    return target;
  }

  absl::StatusOr<Target> ParseTarget(bool attributes) {
    if (++nesting_ > kNestingMax) {
      return TemplateError(in_.current().line, "an assignment nests too deep");
    }
    LH_ASSIGN_OR_RETURN(Target first, ParseOneTarget(attributes));
    --nesting_;
    if (!in_.AtOperator(",")) return first;
    Target tuple;
    tuple.kind = Target::Kind::kTuple;
    tuple.targets.push_back(std::move(first));
    while (in_.SkipOperator(",")) {
      if (in_.AtName("in") || in_.AtOperator("=") || in_.AtOperator(")")) break;
      LH_ASSIGN_OR_RETURN(Target next, ParseOneTarget(attributes));
      tuple.targets.push_back(std::move(next));
    }
    return tuple;
  }

  absl::StatusOr<StatementPtr> ParseSet() {
    StatementPtr statement = New(Kind::kSet);
    LH_ASSIGN_OR_RETURN(Target target, ParseTarget(true));
    statement->targets.push_back(std::move(target));
    if (in_.SkipOperator("=")) {
      LH_ASSIGN_OR_RETURN(ExpressionPtr value, in_.ParseTuple(true));
      statement->expressions.push_back(std::move(value));
      LH_RETURN_IF_ERROR(ExpectBlockEnd());
      return statement;
    }
    statement->kind = Kind::kSetBlock;
    LH_ASSIGN_OR_RETURN(ExpressionPtr filter, in_.ParseFilters(nullptr, false));
    statement->expressions.push_back(std::move(filter));
    LH_ASSIGN_OR_RETURN(Body body, ParseWholeBody("endset"));
    statement->bodies.push_back(std::move(body));
    return statement;
  }

  absl::Status ParseSignature(MacroDefinition* macro) {
    LH_RETURN_IF_ERROR(in_.ExpectOperator("("));
    while (!in_.AtOperator(")")) {
      if (!macro->parameters.empty()) {
        LH_RETURN_IF_ERROR(in_.ExpectOperator(","));
        if (in_.AtOperator(")")) break;
      }
      LH_ASSIGN_OR_RETURN(std::string parameter, in_.ExpectName());
      macro->parameters.push_back(std::move(parameter));
      if (in_.SkipOperator("=")) {
        LH_ASSIGN_OR_RETURN(ExpressionPtr fallback, in_.ParseExpression());
        macro->defaults.push_back(std::move(fallback));
      } else if (!macro->defaults.empty()) {
        return in_.Unexpected("a default, as the parameter before has one,");
      }
    }
    return in_.ExpectOperator(")");
  }

  // A break cannot leave a macro for the loop around its definition.
  absl::Status ParseMacroBody(absl::string_view end, MacroDefinition* macro) {
    const int loops = std::exchange(loops_, 0);
    LH_ASSIGN_OR_RETURN(macro->body, ParseWholeBody(end));
    loops_ = loops;
    return absl::OkStatus();
  }

  absl::StatusOr<StatementPtr> ParseMacro() {
    StatementPtr statement = New(Kind::kMacro);
    statement->macro = std::make_unique<MacroDefinition>();
    LH_ASSIGN_OR_RETURN(statement->macro->name, in_.ExpectName());
    LH_RETURN_IF_ERROR(ParseSignature(statement->macro.get()));
    LH_RETURN_IF_ERROR(ParseMacroBody("endmacro", statement->macro.get()));
    return statement;
  }

  absl::StatusOr<StatementPtr> ParseCall() {
    StatementPtr statement = New(Kind::kCall);
    statement->macro = std::make_unique<MacroDefinition>();
    statement->macro->name = "caller";
    if (in_.AtOperator("(")) LH_RETURN_IF_ERROR(ParseSignature(statement->macro.get()));
    LH_ASSIGN_OR_RETURN(ExpressionPtr call, in_.ParseExpression());
    if (call->kind != Expression::Kind::kCall) {
      return TemplateError(statement->line, "a call block needs a call");
    }
    statement->expressions.push_back(std::move(call));
    LH_RETURN_IF_ERROR(ParseMacroBody("endcall", statement->macro.get()));
    return statement;
  }

  absl::StatusOr<StatementPtr> ParseFilterBlock() {
    StatementPtr statement = New(Kind::kFilterBlock);
    LH_ASSIGN_OR_RETURN(ExpressionPtr filter, in_.ParseFilters(nullptr, true));
    statement->expressions.push_back(std::move(filter));
    LH_ASSIGN_OR_RETURN(Body body, ParseWholeBody("endfilter"));
    statement->bodies.push_back(std::move(body));
    return statement;
  }

  absl::StatusOr<StatementPtr> ParseWith() {
    StatementPtr statement = New(Kind::kWith);
    while (in_.current().kind != TokenKind::kBlockEnd) {
      if (!statement->targets.empty()) LH_RETURN_IF_ERROR(in_.ExpectOperator(","));
      LH_ASSIGN_OR_RETURN(Target target, ParseOneTarget(false));
      statement->targets.push_back(std::move(target));
      LH_RETURN_IF_ERROR(in_.ExpectOperator("="));
      LH_ASSIGN_OR_RETURN(ExpressionPtr value, in_.ParseExpression());
      statement->expressions.push_back(std::move(value));
    }
    LH_ASSIGN_OR_RETURN(Body body, ParseWholeBody("endwith"));
    statement->bodies.push_back(std::move(body));
    return statement;
  }

  ExpressionParser in_;
  int nesting_ = 0;
  int loops_ = 0;
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(absl::string_view source) {
  LH_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace longhaul::jinja
