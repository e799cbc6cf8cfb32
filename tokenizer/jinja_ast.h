// The syntax tree of a template.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tokenizer/jinja_value.h"

namespace crumb::tokenizer::jinja {

struct Place {
  int line = 1, column = 1;
};

enum class Op {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kConcat,  // arithmetic
  kAnd,
  kOr,
  kNot,
  kNeg,
  kPos,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kIn,
  kNotIn,  // comparison
};

enum class ExprKind {
  kConst,       // value
  kName,        // name
  kList,        // items
  kTuple,       // items
  kDict,        // items: key, value, key, value
  kAttribute,   // items[0] . name
  kItem,        // items[0] [ items[1] ]
  kSlice,       // items[0] [ items[1] : items[2] : items[3] ], null where left out
  kCall,        // items[0] ( items[1..], keywords )
  kFilter,      // items[0] | name ( items[1..], keywords ); items[0] is null in a filter block
  kTest,        // items[0] is name ( items[1..], keywords )
  kUnary,       // ops[0] items[0]
  kChain,       // items[0] ops[0] items[1] ops[1] ...: arithmetic from the left, and, or
  kCompare,     // the same for comparisons, as Python chains them
  kConditional  // items[0] if items[1] else items[2] (null where left out)
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind;
  Place place;
  std::string name;
  Value value;
  std::vector<ExprPtr> items;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  std::vector<Op> ops;
  int depth = 1;  // of the tree below, bounded by the parser
};

// What for and set assign to.
struct Target {
  Place place;
  std::string name;       // empty: a tuple of `parts`
  std::string attribute;  // not empty: name.attribute of a namespace
  std::vector<Target> parts;
};

struct Parameter {
  std::string name;
  ExprPtr standard;  // the value if no argument is given, or null
};

enum class StmtKind {
  kText,       // text
  kPrint,      // exprs[0]
  kIf,         // exprs[i] guards bodies[i]; one more body is the else
  kFor,        // target in exprs[0] if exprs[1] (or null); bodies[0], else bodies[1]
  kSet,        // target = exprs[0]
  kSetBlock,   // target = bodies[0] through the filters of exprs[0] (or null)
  kMacro,      // name(parameters) bodies[0]
  kCallBlock,  // exprs[0] is the call, bodies[0] its caller(parameters)
  kFilter,     // bodies[0] through the filters of exprs[0]
  kScope,      // bodies[0] in a scope of its own: generation
  kBreak,
  kContinue
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

struct Stmt {
  StmtKind kind;
  Place place;
  std::string text;  // template data, or a macro's name
  std::vector<ExprPtr> exprs;
  std::vector<Body> bodies;
  Target target;
  std::vector<Parameter> parameters;
  bool uses_caller = false;  // of a macro
};

}  // namespace crumb::tokenizer::jinja
