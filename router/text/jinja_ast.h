// A parsed template. Immutable after parsing, so any number of renders may walk it at once.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "router/text/jinja_filters.h"
#include "router/text/jinja_runtime.h"

namespace longhaul::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind : uint8_t {
    kConstant,     // constant
    kName,         // name
    kList,         // children
    kTuple,        // children
    kDict,         // children: key, value, key, value, ...
    kAttribute,    // children[0] . name
    kItem,         // children[0] [ children[1] ]
    kSlice,        // children[0] [ children[1] : children[2] : children[3] ]
    kCall,         // children[0] ( children[1...], named )
    kFilter,       // children[0] | name ( children[1...], named ); children[0] null: a block's text
    kTest,         // children[0] is name ( children[1...], named )
    kNot,          // not children[0]
    kNegate,       // - children[0]
    kPlus,         // + children[0]
    kAnd,          // children[0] and children[1]
    kOr,           // children[0] or children[1]
    kArithmetic,   // children[0] op children[1]
    kConcatenate,  // children[0] ~ children[1] ~ ...
    kCompare,      // children[0] comparisons[0] children[1] comparisons[1] ...
    kConditional,  // children[1] if children[0] else children[2] (may be null)
  };
  enum class Comparison : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

  Kind kind = Kind::kConstant;
  int line = 0;
  int depth = 1;  // levels of this tree
  Value constant;
  std::string name;
  std::vector<ExpressionPtr> children;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  Runtime::Operator op = Runtime::Operator::kAdd;
  std::vector<Comparison> comparisons;
  FilterFunction filter = nullptr;  // null: this engine has none of that name
  TestFunction test = nullptr;      // the same
};

// What can be assigned to.
struct Target {
  enum class Kind : uint8_t { kName, kAttribute, kTuple };
  Kind kind = Kind::kName;
  std::string name;
  std::string attribute;        // kAttribute: name.attribute
  std::vector<Target> targets;  // kTuple
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

// The parameters and body of a macro or a call block.
struct MacroDefinition {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of the last parameters
  Body body;
};

struct Statement {
  enum class Kind : uint8_t {
    kData,      // text
    kOutput,    // expressions[0]
    kIf,        // expressions[i] guards bodies[i]; one more body: else
    kFor,       // targets[0] in expressions[0] if expressions[1] (may be null); bodies: body, else
    kSet,       // targets[0] = expressions[0]
    kSetBlock,  // targets[0] = bodies[0] | expressions[0] (may be null)
    kMacro,     // macro
    kCall,      // call expressions[0], with macro as its caller
    kFilterBlock,  // bodies[0] | expressions[0]
    kWith,         // targets[i] = expressions[i] inside bodies[0]
    kGroup,        // bodies[0], in the same scope
    kBreak,
    kContinue,
  };

  Kind kind = Kind::kData;
  int line = 0;
  std::string text;
  std::vector<ExpressionPtr> expressions;
  std::vector<Target> targets;
  std::vector<Body> bodies;
  std::unique_ptr<MacroDefinition> macro;
};

}  // namespace longhaul::jinja
