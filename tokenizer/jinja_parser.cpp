#include "tokenizer/jinja_parser.h"

#include <algorithm>
#include <initializer_list>

#include "tokenizer/jinja_expression_parser.h"

namespace crumb::tokenizer::jinja {
namespace {

class Parser : private ExpressionParser {
 public:
  Parser(std::string_view source, int64_t depth) : ExpressionParser(source, depth) {}

  Body run() { return parse_body({}); }

 private:
  using Ends = std::initializer_list<std::string_view>;

  // Up to a tag that `ends` names, whose name is the current token then; or to the end of the
  // template if there are none.
  Body parse_body(Ends ends) {
    const Nested nested(*this);
    Body body;
    while (current().kind != TokenKind::kEnd) {
      const Token& token = next();
      auto stmt = std::make_unique<Stmt>();
      stmt->place = token.place;
      if (token.kind == TokenKind::kData) {
        stmt->kind = StmtKind::kText;
        stmt->text = token.text;
      } else if (token.kind == TokenKind::kPrintBegin) {
        stmt->kind = StmtKind::kPrint;
        stmt->exprs.push_back(parse_tuple(false, true, ""));
        expect_kind(TokenKind::kPrintEnd, "'}}'");
      } else {
        if (current().kind == TokenKind::kName &&
            std::find(ends.begin(), ends.end(), current().text) != ends.end()) {
          return body;
        }
        stmt->place = current().place;
        parse_statement(*stmt);
        expect_kind(TokenKind::kBlockEnd, "'%}'");
      }
      body.push_back(std::move(stmt));
    }
    if (ends.size() > 0) {
      std::string names;
      for (const std::string_view end : ends)
        names += (names.empty() ? "" : " or ") + std::string(end);
      error("expected {% " + names + " %}, found the end of the template");
    }
    return body;
  }

  // The body of a statement whose head ends here, and its end tag.
  Body parse_block(Ends ends) {
    skip(":");
    expect_kind(TokenKind::kBlockEnd, "'%}'");
    return parse_body(ends);
  }
  Body parse_block_to(std::string_view end) {
    Body body = parse_block({end});
    next();
    return body;
  }
  // A body that becomes a function in Jinja: loops around it cannot be left from inside.
  Body parse_function_body(std::string_view end) {
    const int loops = loops_;
    loops_ = 0;
    Body body = parse_block_to(end);
    loops_ = loops;
    return body;
  }

  void parse_statement(Stmt& stmt) {
    using Parse = void (Parser::*)(Stmt&);
    struct Row {
      std::string_view name;
      StmtKind kind;
      Parse parse;
    };
    constexpr Row kStatements[] = {{"if", StmtKind::kIf, &Parser::parse_if},
                                   {"for", StmtKind::kFor, &Parser::parse_for},
                                   {"set", StmtKind::kSet, &Parser::parse_set},
                                   {"macro", StmtKind::kMacro, &Parser::parse_macro},
                                   {"call", StmtKind::kCallBlock, &Parser::parse_call_block},
                                   {"filter", StmtKind::kFilter, &Parser::parse_filter_block},
                                   {"generation", StmtKind::kScope, &Parser::parse_generation},
                                   {"break", StmtKind::kBreak, &Parser::parse_loop_control},
                                   {"continue", StmtKind::kContinue, &Parser::parse_loop_control}};
    if (current().kind != TokenKind::kName) {
      error("expected the name of a statement, found " + describe(current()));
    }
    for (const Row& row : kStatements) {
      if (!at_name(row.name)) continue;
      next();
      stmt.kind = row.kind;
      (this->*row.parse)(stmt);
      return;
    }
    error("statement '" + current().text + "' is unknown or not supported");
  }

  void parse_if(Stmt& stmt) {
    while (true) {
      stmt.exprs.push_back(parse_tuple(false, false, ""));
      stmt.bodies.push_back(parse_block({"elif", "else", "endif"}));
      const std::string end = next().text;
      if (end == "endif") return;
      if (end == "else") {
        stmt.bodies.push_back(parse_block_to("endif"));
        return;
      }
    }
  }

  void parse_for(Stmt& stmt) {
    stmt.target = parse_target("in", false);
    if (!skip_name("in")) error("expected 'in', found " + describe(current()));
    stmt.exprs.push_back(parse_tuple(false, false, "recursive"));
    stmt.exprs.push_back(skip_name("if") ? parse_expression() : nullptr);
    if (at_name("recursive")) error("recursive loops are not supported");
    ++loops_;
    stmt.bodies.push_back(parse_block({"endfor", "else"}));
    --loops_;
    if (next().text == "else") {
      stmt.bodies.push_back(parse_block_to("endfor"));
    }
  }

  void parse_set(Stmt& stmt) {
    stmt.target = parse_target("", true);
    if (skip("=")) {
      stmt.exprs.push_back(parse_tuple(false, true, ""));
      return;
    }
    stmt.kind = StmtKind::kSetBlock;
    ExprPtr filters;
    while (skip("|")) filters = parse_filter(std::move(filters));
    stmt.exprs.push_back(std::move(filters));
    stmt.bodies.push_back(parse_block_to("endset"));
  }

  // Names, or names and parentheses with commas: a tuple.
  Target parse_target(std::string_view end_name, bool with_attribute) {
    const Place place = current().place;
    Target first = parse_one_target(with_attribute);
    if (!at(",")) return first;
    Target tuple;
    tuple.place = place;
    tuple.parts.push_back(std::move(first));
    while (skip(",")) {
      if (at_tuple_end(end_name) || at("=")) break;
      tuple.parts.push_back(parse_one_target(with_attribute));
    }
    return tuple;
  }

  Target parse_one_target(bool with_attribute) {
    const Nested nested(*this);
    if (skip("(")) {
      Target target = parse_target("", false);
      expect(")");
      return target;
    }
    constexpr std::string_view kConstants[] = {"true", "false", "none", "True", "False", "None"};
    Target target;
    target.place = current().place;
    const bool constant = std::find(std::begin(kConstants), std::end(kConstants), current().text) !=
                          std::end(kConstants);
    if (current().kind != TokenKind::kName || constant) {
      error("cannot assign to " + describe(current()));
    }
    target.name = next().text;
    if (with_attribute && skip(".")) target.attribute = expect_any_name();
    return target;
  }

  void parse_parameters(Stmt& stmt) {
    expect("(");
    while (!at(")")) {
      if (!stmt.parameters.empty()) expect(",");
      if (current().kind != TokenKind::kName) {
        error("expected a parameter, found " + describe(current()));
      }
      Parameter parameter{next().text, nullptr};
      if (skip("=")) {
        parameter.standard = parse_expression();
      } else if (!stmt.parameters.empty() && stmt.parameters.back().standard != nullptr) {
        error("parameter without a default follows one with a default");
      }
      stmt.parameters.push_back(std::move(parameter));
    }
    expect(")");
  }

  void parse_macro(Stmt& stmt) {
    stmt.text = expect_any_name();
    Stmt* const outer = macro_;
    macro_ = &stmt;
    parse_parameters(stmt);
    stmt.bodies.push_back(parse_function_body("endmacro"));
    macro_ = outer;
  }

  void parse_call_block(Stmt& stmt) {
    stmt.text = "caller";
    if (at("(")) parse_parameters(stmt);
    stmt.exprs.push_back(parse_expression());
    if (stmt.exprs[0]->kind != ExprKind::kCall) error_at("expected a call", stmt.exprs[0]->place);
    stmt.bodies.push_back(parse_function_body("endcall"));
  }

  void parse_filter_block(Stmt& stmt) {
    ExprPtr filters = parse_filter(nullptr);
    while (skip("|")) filters = parse_filter(std::move(filters));
    stmt.exprs.push_back(std::move(filters));
    stmt.bodies.push_back(parse_block_to("endfilter"));
  }

  void parse_generation(Stmt& stmt) { stmt.bodies.push_back(parse_function_body("endgeneration")); }

  void parse_loop_control(Stmt& stmt) {
    if (loops_ == 0) error_at("break or continue outside a loop", stmt.place);
  }

  int loops_ = 0;  // around the current token, within its macro
};

}  // namespace

Body parse(std::string_view source, int64_t depth) { return Parser(source, depth).run(); }

}  // namespace crumb::tokenizer::jinja
