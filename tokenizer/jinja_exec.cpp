// The evaluator's statements.
#include <algorithm>

#include "tokenizer/jinja_eval.h"

namespace crumb::tokenizer::jinja {

Evaluator::Flow Evaluator::exec(const Body& body) {
  for (const auto& stmt : body) {
    const Flow flow = exec(*stmt);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::exec(const Stmt& stmt) {
  place_ = stmt.place;
  meter_.charge(1);
  switch (stmt.kind) {
    case StmtKind::kText:
      emit(Text(stmt.text, true));
      break;
    case StmtKind::kPrint: {
      const Value value = eval(*stmt.exprs[0]);
      place_ = stmt.exprs[0]->place;
      if (value.text() == nullptr) meter_.charge_walk(value);
      emit(to_text(value));
      break;
    }
    case StmtKind::kIf:
      return exec_if(stmt);
    case StmtKind::kFor:
      return exec_for(stmt);
    case StmtKind::kSet:
      assign(stmt.target, eval(*stmt.exprs[0]));
      break;
    case StmtKind::kSetBlock:
    case StmtKind::kFilter: {
      Value value = Value::string(capture(stmt.bodies[0]));
      if (stmt.exprs[0] != nullptr) value = eval_filter(*stmt.exprs[0], &value);
      if (stmt.kind == StmtKind::kSetBlock) {
        assign(stmt.target, std::move(value));
      } else {
        emit(to_text(value));
      }
      break;
    }
    case StmtKind::kMacro:
      scope_->set(stmt.text, make_macro(stmt));
      break;
    case StmtKind::kCallBlock:
      exec_call_block(stmt);
      break;
    case StmtKind::kScope:
      return exec_scoped(stmt.bodies[0]);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::exec_if(const Stmt& stmt) {
  for (std::size_t i = 0; i < stmt.exprs.size(); ++i) {
    if (truthy(eval(*stmt.exprs[i]))) return exec(stmt.bodies[i]);
  }
  return stmt.bodies.size() > stmt.exprs.size() ? exec(stmt.bodies.back()) : Flow::kNext;
}

Evaluator::Flow Evaluator::exec_scoped(const Body& body) {
  auto scope = std::make_shared<Scope>();
  scope->parent = scope_;
  const std::shared_ptr<Scope> outer = std::exchange(scope_, std::move(scope));
  const Flow flow = exec(body);
  scope_ = outer;
  return flow;
}

Evaluator::Flow Evaluator::exec_for(const Stmt& stmt) {
  const Value source = eval(*stmt.exprs[0]);
  place_ = stmt.exprs[0]->place;
  auto loop = std::make_shared<Loop>();
  loop->stmt = &stmt;
  loop->scope = scope_;
  loop->items = iterate(source);
  loop->filtered = stmt.exprs[1] != nullptr;
  meter_.charge(static_cast<int64_t>(loop->items.size()));
  const std::shared_ptr<Scope> outer = scope_;
  while (advance(*loop)) {
    scope_ = std::make_shared<Scope>();
    scope_->parent = outer;
    scope_->set("loop", Value(loop));
    place_ = stmt.target.place;
    assign(stmt.target, loop->current);
    const Flow flow = exec(stmt.bodies[0]);
    scope_ = outer;
    if (flow == Flow::kBreak) break;
  }
  if (loop->index0 >= 0 || stmt.bodies.size() < 2) return Flow::kNext;
  return exec_scoped(stmt.bodies[1]);
}

bool Evaluator::take(Loop& loop, Value& item) {
  while (loop.next < loop.items.size()) {
    Value candidate = loop.items[loop.next++];
    meter_.charge(1);
    if (loop.filtered) {
      const std::shared_ptr<Scope> inner = scope_;
      scope_ = std::make_shared<Scope>();
      scope_->parent = loop.scope;
      assign(loop.stmt->target, candidate);
      const bool passes = truthy(eval(*loop.stmt->exprs[1]));
      scope_ = inner;
      if (!passes) continue;
    }
    item = std::move(candidate);
    return true;
  }
  return false;
}

bool Evaluator::peek(Loop& loop) {
  if (!loop.has_after) loop.has_after = take(loop, loop.after);
  return loop.has_after;
}

bool Evaluator::advance(Loop& loop) {
  if (!peek(loop)) return false;
  loop.before = std::move(loop.current);
  loop.current = std::move(loop.after);
  loop.has_after = false;
  ++loop.index0;
  return true;
}

int64_t Evaluator::loop_length(Loop& loop) {
  if (loop.filtered) {
    Values passed(loop.items.begin(),
                  loop.items.begin() + static_cast<std::ptrdiff_t>(loop.index0 + 1));
    if (loop.has_after) passed.push_back(loop.after);
    const std::size_t next = passed.size();
    for (Value item; take(loop, item);) passed.push_back(item);
    loop.items = std::move(passed);
    loop.next = next;
    loop.filtered = false;
  }
  return static_cast<int64_t>(loop.items.size());
}

void Evaluator::assign(const Target& target, Value value) {
  if (!target.parts.empty()) {
    place_ = target.place;
    if (!is_iterable(value)) fail("cannot unpack non-iterable " + type_name(value) + " object");
    Values items = iterate(value);
    meter_.charge(static_cast<int64_t>(items.size()));
    if (items.size() != target.parts.size()) {
      fail("expected " + std::to_string(target.parts.size()) + " values to unpack, found " +
           std::to_string(items.size()));
    }
    for (std::size_t i = 0; i < items.size(); ++i) assign(target.parts[i], std::move(items[i]));
    return;
  }
  if (target.attribute.empty()) {
    scope_->set(target.name, std::move(value));
    return;
  }
  place_ = target.place;
  const Value* object = scope_->find(target.name);
  const auto* space = object == nullptr ? nullptr : object->get<std::shared_ptr<Namespace>>();
  if (space == nullptr) fail("cannot assign attribute on non-namespace object");
  (*space)->set(target.attribute, std::move(value));
}

Value Evaluator::make_macro(const Stmt& stmt) {
  auto macro = std::make_shared<Callable>();
  macro->name = stmt.text;
  macro->macro = &stmt;
  macro->scope = scope_;
  // The macro may be kept in a namespace and called when its scope is gone otherwise.
  if (kept_.empty() || kept_.back() != scope_) kept_.push_back(scope_);
  return Value(std::shared_ptr<const Callable>(std::move(macro)));
}

void Evaluator::exec_call_block(const Stmt& stmt) {
  const Value caller = make_macro(stmt);
  const Value result = eval_call(*stmt.exprs[0], &caller);
  place_ = stmt.place;
  emit(to_text(result));
}

Text Evaluator::capture(const Body& body) {
  Text text;
  Text* const outer = std::exchange(out_, &text);
  exec_scoped(body);
  out_ = outer;
  return text;
}

void Evaluator::emit(const Text& text) {
  if (out_->size() + text.size() > static_cast<std::size_t>(meter_.budget.output)) {
    fail("the template prints more than " + std::to_string(meter_.budget.output) + " bytes");
  }
  meter_.charge_bytes(text.size());
  out_->append(text);
}

}  // namespace crumb::tokenizer::jinja
