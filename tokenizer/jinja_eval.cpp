#include "tokenizer/jinja_eval.h"

#include <algorithm>
#include <iterator>

#include "tokenizer/utf8.h"

namespace crumb::tokenizer::jinja {
namespace {

// Nodes that may be under evaluation at once, for each level of the budget's depth: a macro that
// calls itself puts some ten on the stack for each call.
constexpr int64_t kNodesPerLevel = 8;

constexpr std::string_view kBuiltins[] = {"range", "namespace", "dict", "raise_exception",
                                          "strftime_now"};
constexpr std::string_view kForeignBuiltins[] = {"lipsum", "cycler", "joiner"};

template <std::size_t kCount>
bool is_in(const std::string_view (&names)[kCount], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

}  // namespace

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    for (const auto& variable : scope->variables) {
      if (variable.first == name) return &variable.second;
    }
  }
  return nullptr;
}

void Scope::set(const std::string& name, Value value) {
  for (auto& variable : variables) {
    if (variable.first == name) {
      variable.second = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

class Evaluator::Nested {
 public:
  explicit Nested(Evaluator& evaluator) : evaluator_(evaluator) {
    if (++evaluator_.depth_ > evaluator_.meter_.budget.depth * kNodesPerLevel) {
      --evaluator_.depth_;
      fail("evaluation nests too deeply");
    }
  }
  ~Nested() { --evaluator_.depth_; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  Evaluator& evaluator_;
};

Evaluator::Evaluator(const TemplateBudget& budget, std::time_t now)
    : meter_{budget}, now_(now), scope_(std::make_shared<Scope>()) {}

Evaluator::~Evaluator() {
  for (const auto& space : namespaces_) {
    const Values values = std::move(space->values);
    space->values.clear();
  }
}

void Evaluator::set_variable(const std::string& name, Value value) {
  scope_->set(name, std::move(value));
}

Text Evaluator::run(const Body& body) {
  Text out;
  out_ = &out;
  exec(body);
  return out;
}

Value Evaluator::eval(const Expr& expr) {
  Value value = eval_with_loop(expr);
  if (value.get<std::shared_ptr<Loop>>() != nullptr) {
    place_ = expr.place;
    fail("'loop' can only be used as loop.attribute");
  }
  return value;
}

Value Evaluator::eval_with_loop(const Expr& expr) {
  const Nested nested(*this);
  place_ = expr.place;
  meter_.charge(1);
  switch (expr.kind) {
    case ExprKind::kConst:
      return expr.value;
    case ExprKind::kName:
      return eval_name(expr);
    case ExprKind::kList:
      return eval_items(expr, Flavor::kList);
    case ExprKind::kTuple:
      return eval_items(expr, Flavor::kTuple);
    case ExprKind::kDict:
      return eval_dict(expr);
    case ExprKind::kAttribute:
      return eval_attribute(expr);
    case ExprKind::kItem: {
      const Value object = eval(*expr.items[0]), key = eval(*expr.items[1]);
      place_ = expr.place;
      if (object.text() != nullptr) meter_.charge_walk(object);
      return item(object, key);
    }
    case ExprKind::kSlice:
      return eval_slice(expr);
    case ExprKind::kCall:
      return eval_call(expr, nullptr);
    case ExprKind::kFilter:
      return eval_filter(expr, nullptr);
    case ExprKind::kTest:
      return eval_test(expr);
    case ExprKind::kUnary: {
      const Value value = eval(*expr.items[0]);
      place_ = expr.place;
      return unary(expr.ops[0], value);
    }
    case ExprKind::kChain:
      return eval_chain(expr);
    case ExprKind::kCompare:
      return eval_compare(expr);
    case ExprKind::kConditional:
      return eval_conditional(expr);
  }
  return {};
}

Value Evaluator::eval_name(const Expr& expr) {
  if (const Value* found = scope_->find(expr.name)) return *found;
  if (is_in(kBuiltins, expr.name)) {
    auto function = std::make_shared<Callable>();
    function->name = expr.name;
    return Value(std::shared_ptr<const Callable>(std::move(function)));
  }
  if (is_in(kForeignBuiltins, expr.name)) fail(in_quotes(expr.name) + " is not supported");
  return Value::undefined(in_quotes(expr.name) + " is undefined");
}

Value Evaluator::eval_items(const Expr& expr, Flavor flavor) {
  Values items;
  items.reserve(expr.items.size());
  for (const ExprPtr& part : expr.items) items.push_back(eval(*part));
  place_ = expr.place;
  return make_sequence(flavor, std::move(items));
}

Value Evaluator::eval_dict(const Expr& expr) {
  auto dict = std::make_shared<Dict>();
  for (std::size_t i = 0; i < expr.items.size(); i += 2) {
    const Value key = eval(*expr.items[i]);
    Value value = eval(*expr.items[i + 1]);
    place_ = expr.place;
    dict->set(key, std::move(value));
  }
  return Value(std::move(dict));
}

Value Evaluator::eval_attribute(const Expr& expr) {
  const Value object = eval_with_loop(*expr.items[0]);
  place_ = expr.place;
  if (const auto* loop = object.get<std::shared_ptr<Loop>>()) {
    return loop_attribute(**loop, expr.name);
  }
  return attribute(object, expr.name);
}

Value Evaluator::eval_slice(const Expr& expr) {
  const Value object = eval(*expr.items[0]);
  Value bounds[3];
  for (std::size_t i = 0; i < 3; ++i) {
    if (expr.items[i + 1] != nullptr) bounds[i] = eval(*expr.items[i + 1]);
  }
  place_ = expr.place;
  return slice(meter_, object, bounds[0], bounds[1], bounds[2]);
}

Value Evaluator::eval_chain(const Expr& expr) {
  Value left = eval(*expr.items[0]);
  for (std::size_t i = 0; i < expr.ops.size(); ++i) {
    const Op op = expr.ops[i];
    if (op == Op::kAnd || op == Op::kOr) {
      if (truthy(left) == (op == Op::kOr)) return left;
      left = eval(*expr.items[i + 1]);
      continue;
    }
    const Value right = eval(*expr.items[i + 1]);
    place_ = expr.place;
    left = binary(meter_, op, left, right);
  }
  return left;
}

Value Evaluator::eval_compare(const Expr& expr) {
  Value left = eval(*expr.items[0]);
  bool literal = left.literal();
  for (std::size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = eval(*expr.items[i + 1]);
    literal = literal && right.literal();
    place_ = expr.place;
    if (!compare(meter_, expr.ops[i], left, right)) return Value(false, literal);
    left = std::move(right);
  }
  return Value(true, literal);
}

Value Evaluator::eval_conditional(const Expr& expr) {
  if (truthy(eval(*expr.items[1]))) return eval(*expr.items[0]);
  if (expr.items[2] != nullptr) return eval(*expr.items[2]);
  return Value::undefined("the inline if-expression evaluated to false and has no else");
}

Arguments Evaluator::eval_arguments(const Expr& expr) {
  Arguments arguments;
  for (std::size_t i = 1; i < expr.items.size(); ++i) {
    arguments.positional.push_back(eval(*expr.items[i]));
  }
  for (const auto& [name, value] : expr.keywords) {
    arguments.keywords.emplace_back(name, eval(*value));
  }
  return arguments;
}

Value Evaluator::eval_filter(const Expr& expr, const Value* block) {
  const Nested nested(*this);
  // In a filter block the innermost filter has no operand: the block's text is its input.
  const Expr* operand = expr.items[0].get();
  const Value input = operand == nullptr ? *block
                      : block != nullptr ? eval_filter(*operand, block)
                                         : eval(*operand);
  const Arguments arguments = eval_arguments(expr);
  place_ = expr.place;
  return apply_filter(meter_, expr.name, input, arguments);
}

Value Evaluator::eval_test(const Expr& expr) {
  const bool about_name = expr.name == "defined" || expr.name == "undefined";
  const Value input = about_name ? eval_with_loop(*expr.items[0]) : eval(*expr.items[0]);
  const Arguments arguments = eval_arguments(expr);
  place_ = expr.place;
  bool literal = input.literal();
  for (const Value& value : arguments.positional) literal = literal && value.literal();
  return Value(apply_test(meter_, expr.name, input, arguments), literal);
}

// `caller` is the body of a call block around the call, or null.
Value Evaluator::eval_call(const Expr& expr, const Value* caller) {
  const Expr& callee = *expr.items[0];
  Value function;
  std::shared_ptr<Loop> loop;
  if (callee.kind == ExprKind::kAttribute) {
    const Value object = eval_with_loop(*callee.items[0]);
    place_ = callee.place;
    if (const auto* found = object.get<std::shared_ptr<Loop>>()) {
      loop = *found;
    } else {
      function = attribute(object, callee.name);
    }
  } else {
    function = eval(callee);
  }
  Arguments arguments = eval_arguments(expr);
  if (caller != nullptr) arguments.keywords.emplace_back("caller", *caller);
  place_ = expr.place;
  return loop != nullptr ? call_loop(*loop, callee.name, arguments) : call(function, arguments);
}

Value Evaluator::call(const Value& function, const Arguments& arguments) {
  if (function.is_undefined()) fail(function.why_undefined());
  const auto* callable = function.get<std::shared_ptr<const Callable>>();
  if (callable == nullptr) fail(in_quotes(type_name(function)) + " object is not callable");
  const std::shared_ptr<const Callable> held = *callable;
  if (held->macro != nullptr) return call_macro(*held, arguments);
  if (!held->self.is_none()) return call_method(meter_, *held, arguments);
  return call_builtin(held->name, arguments);
}

Value Evaluator::call_macro(const Callable& macro, const Arguments& arguments) {
  const Stmt& stmt = *macro.macro;
  const std::vector<Parameter>& parameters = stmt.parameters;
  const std::shared_ptr<Scope> defined_in = macro.scope.lock();
  if (defined_in == nullptr) fail("macro '" + stmt.text + "' is called where it no longer exists");
  if (arguments.positional.size() > parameters.size()) {
    fail("macro '" + stmt.text + "' takes not more than " + std::to_string(parameters.size()) +
         " argument(s)");
  }
  if (++calls_ > meter_.budget.depth) fail("macros call each other too deeply");
  auto scope = std::make_shared<Scope>();
  scope->parent = defined_in;
  for (const auto& [name, value] : arguments.keywords) {
    const auto at = std::find_if(parameters.begin(), parameters.end(),
                                 [&n = name](const Parameter& p) { return p.name == n; });
    const bool is_caller = stmt.uses_caller && name == "caller";
    const bool taken =
        at != parameters.end() && at - parameters.begin() < std::ssize(arguments.positional);
    if ((at == parameters.end() && !is_caller) || taken) {
      fail("macro '" + stmt.text + "' takes no keyword argument '" + name + "'");
    }
    scope->set(name, value);
  }
  const std::shared_ptr<Scope> outer = std::exchange(scope_, scope);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    const auto given = [&] {
      return std::any_of(arguments.keywords.begin(), arguments.keywords.end(),
                         [&](const auto& keyword) { return keyword.first == parameter.name; });
    };
    if (i < arguments.positional.size()) {
      scope->set(parameter.name, arguments.positional[i]);
    } else if (!given()) {
      scope->set(parameter.name,
                 parameter.standard != nullptr
                     ? eval(*parameter.standard)
                     : Value::undefined("parameter '" + parameter.name + "' was not provided"));
    }
  }
  if (stmt.uses_caller && scope->find("caller") == nullptr) {
    scope->set("caller", Value::undefined("no caller defined"));
  }
  Text text = capture(stmt.bodies[0]);
  scope_ = outer;
  --calls_;
  return Value::string(std::move(text));
}

Value Evaluator::call_builtin(const std::string& name, const Arguments& arguments) {
  if (name == "range") return make_range_value(arguments);
  if (name == "namespace") return make_namespace(arguments);
  if (name == "strftime_now") return time_text(arguments);
  if (name == "raise_exception") {
    const Bound bound(name, "message", 1, arguments);
    fail(to_text(*bound[0]).bytes());
  }
  auto dict = std::make_shared<Dict>();
  if (arguments.positional.size() > 1) fail("dict: expected at most 1 argument");
  for (const Value& source : arguments.positional) {
    if (source.dict() == nullptr) fail("dict: expected a mapping, found " + type_name(source));
    meter_.charge_walk(source);
    for (const auto& [key, value] : source.dict()->entries) dict->set(key, value);
  }
  for (const auto& [key, value] : arguments.keywords) dict->set(Value::string(key, true), value);
  return Value(std::move(dict));
}

Value Evaluator::make_range_value(const Arguments& arguments) {
  const Bound bound("range", "start/,stop/,step/", 1, arguments);
  const int64_t first = integer(*bound[0], "range()");
  const int64_t step = bound[2] == nullptr ? 1 : integer(*bound[2], "range()");
  bool literal = true;
  for (const Value& value : arguments.positional) literal = literal && value.scalar_literal();
  if (bound[1] == nullptr) return range(meter_, 0, first, step, literal);
  return range(meter_, first, integer(*bound[1], "range()"), step, literal);
}

Value Evaluator::make_namespace(const Arguments& arguments) {
  auto space = std::make_shared<Namespace>();
  if (arguments.positional.size() > 1) fail("namespace: expected at most 1 argument");
  for (const Value& source : arguments.positional) {
    if (source.dict() == nullptr) fail("namespace: expected a mapping");
    meter_.charge_walk(source);
    for (const auto& [key, value] : source.dict()->entries) {
      space->set(string_of(key, "namespace").bytes(), value);
    }
  }
  for (const auto& [name, value] : arguments.keywords) space->set(name, value);
  namespaces_.push_back(space);
  return Value(std::move(space));
}

Value Evaluator::time_text(const Arguments& arguments) {
  const Bound bound("strftime_now", "format", 1, arguments);
  const Text& format = string_of(*bound[0], "strftime_now");
  if (format.size() == 0) return *bound[0];
  std::tm local{};
  if (localtime_r(&now_, &local) == nullptr) fail("strftime_now: no local time");
  // A trailing mark tells an empty result from one that did not fit.
  const std::string marked = format.bytes() + '.';
  std::string out(marked.size() * 16 + 256, '\0');
  meter_.charge_bytes(out.size());
  const std::size_t size = std::strftime(out.data(), out.size(), marked.c_str(), &local);
  if (size == 0) fail("strftime_now: result too long");
  out.resize(size - 1);
  return Value::string(std::move(out), format.literal());
}

Value Evaluator::call_loop(Loop& loop, const std::string& name, const Arguments& arguments) {
  if (!arguments.keywords.empty()) fail("loop." + name + "() takes no keyword arguments");
  if (name == "cycle") {
    if (arguments.positional.empty()) fail("no items for cycling given");
    const auto count = static_cast<int64_t>(arguments.positional.size());
    return arguments.positional[static_cast<std::size_t>(loop.index0 % count)];
  }
  if (name != "changed") fail("loop has no method '" + name + "'");
  Value now = make_sequence(Flavor::kTuple, arguments.positional);
  meter_.charge_walk(now);
  const bool changed = !loop.has_changed || !equal(now, loop.changed_arguments);
  loop.has_changed = true;
  loop.changed_arguments = std::move(now);
  return Value(changed);
}

Value Evaluator::loop_attribute(Loop& loop, const std::string& name) {
  const int64_t index = loop.index0 + 1;
  if (name == "index") return Value(index);
  if (name == "index0") return Value(loop.index0);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(!peek(loop));
  if (name == "length") return Value(loop_length(loop), false);
  if (name == "revindex") return Value(loop_length(loop) - loop.index0, false);
  if (name == "revindex0") return Value(loop_length(loop) - index, false);
  if (name == "depth") return Value(int64_t{1});
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem") {
    return loop.index0 == 0 ? Value::undefined("there is no previous item") : loop.before;
  }
  if (name == "nextitem") {
    return peek(loop) ? loop.after : Value::undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") fail("loop." + name + " can only be called");
  return Value::undefined("'LoopContext object' has no attribute '" + name + "'");
}

}  // namespace crumb::tokenizer::jinja
