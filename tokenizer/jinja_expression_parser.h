// The expressions of Jinja's grammar, one function a level of binding. Part of the parser: only
// jinja_parser.cpp includes it.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/chat_template.h"
#include "tokenizer/jinja_ast.h"
#include "tokenizer/jinja_filters.h"
#include "tokenizer/jinja_lexer.h"

namespace crumb::tokenizer::jinja {

struct OpName {
  std::string_view text;
  Op op;
};
inline constexpr OpName kCompareOps[] = {{"==", Op::kEq}, {"!=", Op::kNe}, {"<", Op::kLt},
                                         {"<=", Op::kLe}, {">", Op::kGt},  {">=", Op::kGe}};
// From loose to tight binding.
inline constexpr std::array<OpName, 2> kSums = {{{"+", Op::kAdd}, {"-", Op::kSub}}};
inline constexpr std::array<OpName, 1> kConcats = {{{"~", Op::kConcat}}};
inline constexpr std::array<OpName, 4> kProducts = {
    {{"*", Op::kMul}, {"/", Op::kDiv}, {"//", Op::kFloorDiv}, {"%", Op::kMod}}};
inline constexpr std::array<OpName, 1> kPowers = {{{"**", Op::kPow}}};
// What a test's argument without parentheses can not start with.
inline constexpr std::string_view kNoTestArgument[] = {"else", "or", "and"};

class ExpressionParser {
 protected:
  ExpressionParser(std::string_view source, int64_t depth)
      : tokens_(tokenize(source)), depth_(depth) {}

  // Counts the nesting of the parser itself.
  class Nested {
   public:
    explicit Nested(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.nesting_ > parser_.depth_) {
        parser_.error("nested more than " + std::to_string(parser_.depth_) + " deep");
      }
    }
    ~Nested() { --parser_.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    ExpressionParser& parser_;
  };

  [[noreturn]] static void error_at(const std::string& what, Place place) {
    throw TemplateError(what, place.line, place.column);
  }
  [[noreturn]] void error(const std::string& what) const { error_at(what, current().place); }

  const Token& current() const { return tokens_[pos_]; }
  const Token& ahead() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = tokens_[pos_];
    if (token.kind != TokenKind::kEnd) ++pos_;
    return token;
  }
  static bool is(const Token& token, TokenKind kind, std::string_view text) {
    return token.kind == kind && token.text == text;
  }
  bool at(std::string_view op) const { return is(current(), TokenKind::kOperator, op); }
  bool at_name(std::string_view name) const { return is(current(), TokenKind::kName, name); }
  bool skip(std::string_view op) { return at(op) && (next(), true); }
  bool skip_name(std::string_view name) { return at_name(name) && (next(), true); }

  static std::string describe(const Token& token) {
    switch (token.kind) {
      case TokenKind::kData:
        return "text";
      case TokenKind::kBlockBegin:
        return "'{%'";
      case TokenKind::kBlockEnd:
        return "'%}'";
      case TokenKind::kPrintBegin:
        return "'{{'";
      case TokenKind::kPrintEnd:
        return "'}}'";
      case TokenKind::kString:
        return "a string";
      case TokenKind::kEnd:
        return "the end of the template";
      default:
        return in_quotes(token.text);
    }
  }
  void expect(std::string_view op) {
    if (!skip(op)) error("expected '" + std::string(op) + "', found " + describe(current()));
  }
  void expect_kind(TokenKind kind, std::string_view what) {
    if (current().kind != kind) {
      error("expected " + std::string(what) + ", found " + describe(current()));
    }
    next();
  }
  std::string expect_any_name() {
    if (current().kind != TokenKind::kName) error("expected a name, found " + describe(current()));
    return next().text;
  }

  // Nodes

  static ExprPtr make(ExprKind kind, Place place) {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->place = place;
    return expr;
  }
  ExprPtr make_constant(Place place, Value value) const {
    ExprPtr expr = make(ExprKind::kConst, place);
    expr->value = std::move(value);
    return expr;
  }
  // Adds an operand and counts the depth of the tree, which the parser's own nesting does not show
  // for chains like a.b.c.d.
  void adopt(Expr& parent, ExprPtr child) const {
    note_depth(parent, child.get());
    parent.items.push_back(std::move(child));
  }
  void note_depth(Expr& parent, const Expr* child) const {
    if (child == nullptr) return;
    parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > depth_) {
      error_at("nested more than " + std::to_string(depth_) + " deep", parent.place);
    }
  }

  // Expressions

  ExprPtr parse_expression(bool with_conditional = true) {
    const Nested nested(*this);
    if (!with_conditional) return parse_logic(Op::kOr);
    const Place place = current().place;
    ExprPtr value = parse_logic(Op::kOr);
    while (skip_name("if")) {
      ExprPtr choice = make(ExprKind::kConditional, place);
      adopt(*choice, std::move(value));
      adopt(*choice, parse_logic(Op::kOr));
      adopt(*choice, skip_name("else") ? parse_expression() : nullptr);
      value = std::move(choice);
    }
    return value;
  }

  ExprPtr parse_logic(Op op) {
    const std::string_view name = op == Op::kOr ? "or" : "and";
    const auto operand = [this, op] { return op == Op::kOr ? parse_logic(Op::kAnd) : parse_not(); };
    ExprPtr left = operand();
    if (!at_name(name)) return left;
    ExprPtr chain = make(ExprKind::kChain, current().place);
    adopt(*chain, std::move(left));
    while (skip_name(name)) {
      chain->ops.push_back(op);
      adopt(*chain, operand());
    }
    return chain;
  }

  ExprPtr parse_not() {
    if (!at_name("not")) return parse_compare();
    const Nested nested(*this);
    ExprPtr expr = make(ExprKind::kUnary, next().place);
    expr->ops.push_back(Op::kNot);
    adopt(*expr, parse_not());
    return expr;
  }

  std::optional<Op> skip_compare() {
    for (const OpName& row : kCompareOps) {
      if (skip(row.text)) return row.op;
    }
    if (skip_name("in")) return Op::kIn;
    if (at_name("not") && is(ahead(), TokenKind::kName, "in")) {
      next();
      next();
      return Op::kNotIn;
    }
    return std::nullopt;
  }

  ExprPtr parse_compare() {
    ExprPtr left = parse_sum();
    const Place place = current().place;
    std::optional<Op> op = skip_compare();
    if (!op) return left;
    ExprPtr compare = make(ExprKind::kCompare, place);
    adopt(*compare, std::move(left));
    for (; op; op = skip_compare()) {
      compare->ops.push_back(*op);
      adopt(*compare, parse_sum());
    }
    return compare;
  }

  template <std::size_t kCount, typename Operand>
  ExprPtr parse_chain(const std::array<OpName, kCount>& table, Operand operand) {
    ExprPtr left = operand();
    ExprPtr chain;
    while (true) {
      const auto row = std::find_if(table.begin(), table.end(),
                                    [this](const OpName& name) { return at(name.text); });
      if (row == table.end()) break;
      const Place place = next().place;
      if (chain == nullptr) {
        chain = make(ExprKind::kChain, place);
        adopt(*chain, std::move(left));
      }
      chain->ops.push_back(row->op);
      adopt(*chain, operand());
    }
    return chain == nullptr ? std::move(left) : std::move(chain);
  }

  ExprPtr parse_sum() {
    return parse_chain(kSums, [this] { return parse_concat(); });
  }
  ExprPtr parse_concat() {
    return parse_chain(kConcats, [this] { return parse_product(); });
  }
  ExprPtr parse_product() {
    return parse_chain(kProducts, [this] { return parse_power(); });
  }
  ExprPtr parse_power() {
    return parse_chain(kPowers, [this] { return parse_unary(true); });
  }

  ExprPtr parse_unary(bool with_filter) {
    const Nested nested(*this);
    ExprPtr expr;
    if (at("-") || at("+")) {
      const Token& sign = next();
      expr = make(ExprKind::kUnary, sign.place);
      expr->ops.push_back(sign.text == "-" ? Op::kNeg : Op::kPos);
      adopt(*expr, parse_unary(false));
    } else {
      expr = parse_primary();
    }
    expr = parse_postfix(std::move(expr));
    return with_filter ? parse_filters_and_tests(std::move(expr)) : std::move(expr);
  }

  ExprPtr parse_primary() {
    const Token& token = current();
    switch (token.kind) {
      case TokenKind::kName:
        return parse_name();
      case TokenKind::kString: {
        std::string text;
        while (current().kind == TokenKind::kString) text += next().text;
        return make_constant(token.place, Value::string(std::move(text), true));
      }
      case TokenKind::kInteger:
        return make_constant(next().place, Value(token.integer));
      case TokenKind::kFloat:
        return make_constant(next().place, Value(token.number));
      default:
        break;
    }
    if (skip("(")) {
      ExprPtr tuple = parse_tuple(true, true, "");
      expect(")");
      return tuple;
    }
    if (at("[")) return parse_list();
    if (at("{")) return parse_dict();
    error("expected an expression, found " + describe(token));
  }

  ExprPtr parse_name() {
    const Token& token = next();
    if (token.text == "true" || token.text == "True")
      return make_constant(token.place, Value(true));
    if (token.text == "false" || token.text == "False") {
      return make_constant(token.place, Value(false));
    }
    if (token.text == "none" || token.text == "None") return make_constant(token.place, Value());
    if (token.text == "caller" && macro_ != nullptr) macro_->uses_caller = true;
    if (macro_ != nullptr && (token.text == "varargs" || token.text == "kwargs")) {
      error_at(in_quotes(token.text) + " of macros is not supported", token.place);
    }
    ExprPtr name = make(ExprKind::kName, token.place);
    name->name = token.text;
    return name;
  }

  bool at_tuple_end(std::string_view end_name) const {
    return current().kind == TokenKind::kPrintEnd || current().kind == TokenKind::kBlockEnd ||
           at(")") || (!end_name.empty() && at_name(end_name));
  }

  // One expression, or several with commas: a tuple.
  ExprPtr parse_tuple(bool parenthesised, bool with_conditional, std::string_view end_name) {
    const Place place = current().place;
    ExprPtr tuple;
    ExprPtr first;
    if (!at_tuple_end(end_name)) first = parse_expression(with_conditional);
    if (first != nullptr && !at(",")) return first;
    if (first == nullptr && !parenthesised) {
      error("expected an expression, found " + describe(current()));
    }
    tuple = make(ExprKind::kTuple, place);
    if (first != nullptr) adopt(*tuple, std::move(first));
    while (skip(",")) {
      if (at_tuple_end(end_name)) break;
      adopt(*tuple, parse_expression(with_conditional));
    }
    return tuple;
  }

  ExprPtr parse_list() {
    ExprPtr list = make(ExprKind::kList, next().place);
    while (!at("]")) {
      if (!list->items.empty()) expect(",");
      if (at("]")) break;
      adopt(*list, parse_expression());
    }
    expect("]");
    return list;
  }

  ExprPtr parse_dict() {
    ExprPtr dict = make(ExprKind::kDict, next().place);
    while (!at("}")) {
      if (!dict->items.empty()) expect(",");
      if (at("}")) break;
      adopt(*dict, parse_expression());
      expect(":");
      adopt(*dict, parse_expression());
    }
    expect("}");
    return dict;
  }

  ExprPtr parse_postfix(ExprPtr expr) {
    while (true) {
      if (at(".")) {
        expr = parse_attribute(std::move(expr));
      } else if (at("[")) {
        expr = parse_subscript(std::move(expr));
      } else if (at("(")) {
        expr = parse_call(std::move(expr));
      } else {
        return expr;
      }
    }
  }

  ExprPtr parse_attribute(ExprPtr object) {
    const Place place = next().place;
    const Token& token = next();
    if (token.kind == TokenKind::kName) {
      ExprPtr attribute = make(ExprKind::kAttribute, place);
      attribute->name = token.text;
      adopt(*attribute, std::move(object));
      return attribute;
    }
    if (token.kind != TokenKind::kInteger) error_at("expected a name or number", token.place);
    ExprPtr item = make(ExprKind::kItem, place);
    adopt(*item, std::move(object));
    adopt(*item, make_constant(token.place, Value(token.integer)));
    return item;
  }

  ExprPtr parse_subscript(ExprPtr object) {
    const Place place = next().place;
    std::array<ExprPtr, 3> parts;
    std::size_t colons = 0;
    while (!at("]")) {
      if (at(",")) error("subscripts with commas are not supported");
      if (skip(":")) {
        if (++colons > 2) error("a slice has at most two colons");
      } else if (parts[colons] == nullptr) {
        parts[colons] = parse_expression();
      } else {
        break;
      }
    }
    const bool empty = colons == 0 && parts[0] == nullptr;
    if (empty) error("expected a subscript, found ']'");
    expect("]");
    ExprPtr item = make(colons == 0 ? ExprKind::kItem : ExprKind::kSlice, place);
    adopt(*item, std::move(object));
    for (std::size_t i = 0; i < (colons == 0 ? 1 : parts.size()); ++i) {
      adopt(*item, std::move(parts[i]));
    }
    return item;
  }

  ExprPtr parse_call(ExprPtr function) {
    ExprPtr call = make(ExprKind::kCall, current().place);
    adopt(*call, std::move(function));
    parse_arguments(*call);
    return call;
  }

  void parse_arguments(Expr& call) {
    expect("(");
    bool first = true;
    while (!at(")")) {
      if (!first) {
        expect(",");
        if (at(")")) break;
      }
      first = false;
      if (at("*") || at("**")) error("unpacking arguments is not supported");
      if (current().kind == TokenKind::kName && is(ahead(), TokenKind::kOperator, "=")) {
        const std::string name = next().text;
        next();
        ExprPtr value = parse_expression();
        note_depth(call, value.get());
        call.keywords.emplace_back(name, std::move(value));
      } else {
        if (!call.keywords.empty()) error("positional argument after a keyword argument");
        adopt(call, parse_expression());
      }
    }
    expect(")");
  }

  ExprPtr parse_filters_and_tests(ExprPtr expr) {
    while (true) {
      if (at("|")) {
        next();
        expr = parse_filter(std::move(expr));
      } else if (at_name("is")) {
        expr = parse_test(std::move(expr));
      } else if (at("(")) {
        expr = parse_call(std::move(expr));
      } else {
        return expr;
      }
    }
  }

  // Null stands for the text of a block.
  ExprPtr parse_filter(ExprPtr input) {
    ExprPtr filter = make(ExprKind::kFilter, current().place);
    filter->name = expect_any_name();
    adopt(*filter, std::move(input));
    if (at("(")) parse_arguments(*filter);
    const std::string problem = check_filter(*filter);
    if (!problem.empty()) error_at(problem, filter->place);
    return filter;
  }

  ExprPtr parse_test(ExprPtr input) {
    const Place place = next().place;
    const bool negated = skip_name("not");
    ExprPtr test = make(ExprKind::kTest, current().place);
    test->name = expect_any_name();
    adopt(*test, std::move(input));
    if (at("(")) {
      parse_arguments(*test);
    } else if (at_test_argument()) {
      if (at_name("is")) error("tests cannot be chained with 'is'");
      adopt(*test, parse_postfix(parse_primary()));
    }
    const std::string problem = check_test(*test);
    if (!problem.empty()) error_at(problem, test->place);
    if (!negated) return test;
    ExprPtr inverse = make(ExprKind::kUnary, place);
    inverse->ops.push_back(Op::kNot);
    adopt(*inverse, std::move(test));
    return inverse;
  }

  bool at_test_argument() const {
    switch (current().kind) {
      case TokenKind::kName:
        return std::find(std::begin(kNoTestArgument), std::end(kNoTestArgument), current().text) ==
               std::end(kNoTestArgument);
      case TokenKind::kString:
      case TokenKind::kInteger:
      case TokenKind::kFloat:
        return true;
      default:
        return at("[") || at("{");
    }
  }

  Stmt* macro_ = nullptr;  // the innermost one around the current token

 private:
  const std::vector<Token> tokens_;
  const int64_t depth_;
  std::size_t pos_ = 0;
  int64_t nesting_ = 0;
};

}  // namespace crumb::tokenizer::jinja
