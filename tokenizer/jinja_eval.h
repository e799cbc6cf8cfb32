// Runs a syntax tree.
#pragma once
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/jinja_ast.h"
#include "tokenizer/jinja_filters.h"
#include "tokenizer/jinja_ops.h"

namespace crumb::tokenizer::jinja {

struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string, Value>> variables;

  const Value* find(std::string_view name) const;  // here or further out
  void set(const std::string& name, Value value);
};

// A running for loop. Items that do not pass its condition are left out as they are reached.
struct Loop {
  const Stmt* stmt = nullptr;
  std::shared_ptr<Scope> scope;  // around the loop
  Values items;
  std::size_t next = 0;
  int64_t index0 = -1;
  bool filtered = false;
  bool has_after = false;
  Value before, current, after;
  Value changed_arguments;  // of the last loop.changed()
  bool has_changed = false;
};

// One rendering.
class Evaluator {
 public:
  Evaluator(const TemplateBudget& budget, std::time_t now);
  ~Evaluator();
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;

  void set_variable(const std::string& name, Value value);
  // Throws Failure; place() says where.
  Text run(const Body& body);
  Place place() const { return place_; }

 private:
  enum class Flow { kNext, kBreak, kContinue };
  class Nested;

  Value eval(const Expr& expr);
  // A loop can be looked into, but is not a value that can be kept.
  Value eval_with_loop(const Expr& expr);
  Value eval_name(const Expr& expr);
  Value eval_items(const Expr& expr, Flavor flavor);
  Value eval_dict(const Expr& expr);
  Value eval_attribute(const Expr& expr);
  Value eval_slice(const Expr& expr);
  Value eval_chain(const Expr& expr);
  Value eval_compare(const Expr& expr);
  Value eval_conditional(const Expr& expr);
  Value eval_filter(const Expr& expr, const Value* block);
  Value eval_test(const Expr& expr);
  Value eval_call(const Expr& expr, const Value* caller);
  Arguments eval_arguments(const Expr& expr);
  Value call(const Value& function, const Arguments& arguments);
  Value call_macro(const Callable& macro, const Arguments& arguments);
  Value call_builtin(const std::string& name, const Arguments& arguments);
  Value call_loop(Loop& loop, const std::string& name, const Arguments& arguments);
  Value make_namespace(const Arguments& arguments);
  Value make_range_value(const Arguments& arguments);
  Value time_text(const Arguments& arguments);
  Value loop_attribute(Loop& loop, const std::string& name);

  Flow exec(const Body& body);
  Flow exec(const Stmt& stmt);
  Flow exec_if(const Stmt& stmt);
  Flow exec_for(const Stmt& stmt);
  Flow exec_scoped(const Body& body);
  void exec_call_block(const Stmt& stmt);
  void assign(const Target& target, Value value);
  Value make_macro(const Stmt& stmt);
  // What the body prints, in a scope of its own.
  Text capture(const Body& body);
  void emit(const Text& text);

  bool advance(Loop& loop);  // to the next item, which becomes current
  bool peek(Loop& loop);     // whether there is a next item, then in `after`
  bool take(Loop& loop, Value& item);
  int64_t loop_length(Loop& loop);

  Meter meter_;
  const std::time_t now_;
  std::shared_ptr<Scope> scope_;
  std::vector<std::shared_ptr<Scope>> kept_;            // scopes that macros refer to
  std::vector<std::shared_ptr<Namespace>> namespaces_;  // emptied at the end: they can hold rings
  Text* out_ = nullptr;
  Place place_;
  int64_t depth_ = 0, calls_ = 0;
};

}  // namespace crumb::tokenizer::jinja
