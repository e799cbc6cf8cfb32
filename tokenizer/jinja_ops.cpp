#include "tokenizer/jinja_ops.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "tokenizer/jinja_methods.h"
#include "tokenizer/jinja_unicode.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer::jinja {
namespace {

// Bytes of string work that count as one step.
constexpr std::size_t kBytesPerStep = 128;

constexpr std::string_view kOpNames[] = {"+", "-", "*", "/", "//", "%", "**", "~"};

std::string_view op_name(Op op) { return kOpNames[static_cast<int>(op)]; }

void check_overflow(bool overflow) {
  if (overflow) fail("integer does not fit in 64 bits");
}

int64_t integer_power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (true) {
    if ((exponent & 1) != 0) {
      check_overflow(__builtin_mul_overflow(result, base, &result));
    }
    exponent >>= 1;
    if (exponent == 0) return result;
    check_overflow(__builtin_mul_overflow(base, base, &base));
  }
}

int64_t floor_div(int64_t a, int64_t b) {
  if (a == std::numeric_limits<int64_t>::min() && b == -1) check_overflow(true);
  return a / b - ((a % b != 0 && (a % b < 0) != (b < 0)) ? 1 : 0);
}

int64_t floor_mod(int64_t a, int64_t b) {
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value integers(Op op, int64_t a, int64_t b, bool literal) {
  int64_t result = 0;
  switch (op) {
    case Op::kAdd:
      check_overflow(__builtin_add_overflow(a, b, &result));
      break;
    case Op::kSub:
      check_overflow(__builtin_sub_overflow(a, b, &result));
      break;
    case Op::kMul:
      check_overflow(__builtin_mul_overflow(a, b, &result));
      break;
    case Op::kPow:
      if (b < 0) {
        if (a == 0) fail("0 cannot be raised to a negative power");
        return Value(std::pow(static_cast<double>(a), static_cast<double>(b)), literal);
      }
      result = integer_power(a, b);
      break;
    default:
      if (b == 0) fail("division by zero");
      if (op == Op::kDiv) return Value(static_cast<double>(a) / static_cast<double>(b), literal);
      result = op == Op::kFloorDiv ? floor_div(a, b) : floor_mod(a, b);
  }
  return Value(result, literal);
}

double float_mod(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

// Python's: the quotient belongs to the remainder, and is rounded to the whole number next to it.
double float_floor_div(double a, double b) {
  const double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (rest < 0) != (b < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}

Value floats(Op op, double a, double b, bool literal) {
  switch (op) {
    case Op::kAdd:
      return Value(a + b, literal);
    case Op::kSub:
      return Value(a - b, literal);
    case Op::kMul:
      return Value(a * b, literal);
    case Op::kPow: {
      if (a == 0 && b < 0) fail("0.0 cannot be raised to a negative power");
      if (a < 0 && b != std::floor(b)) fail("complex numbers are not supported");
      const double power = std::pow(a, b);
      if (std::isinf(power) && !std::isinf(a) && !std::isinf(b)) fail("float power too large");
      return Value(power, literal);
    }
    default:
      if (b == 0) fail("float division by zero");
      if (op == Op::kDiv) return Value(a / b, literal);
      return Value(op == Op::kFloorDiv ? float_floor_div(a, b) : float_mod(a, b), literal);
  }
}

Value joined_texts(Meter& meter, const Text& a, const Text& b) {
  meter.charge_bytes(a.size() + b.size());
  Text out = a;
  out.append(b);
  return Value::string(std::move(out));
}

Value added(Meter& meter, const Value& a, const Value& b) {
  const Text *text_a = a.text(), *text_b = b.text();
  if (text_a != nullptr && text_b != nullptr) {
    if (!text_a->markup && !text_b->markup) return joined_texts(meter, *text_a, *text_b);
    return joined_texts(meter, escaped(*text_a), escaped(*text_b));
  }
  const Sequence *list_a = a.sequence(), *list_b = b.sequence();
  if (list_a != nullptr && list_b != nullptr && list_a->flavor == list_b->flavor &&
      list_a->flavor <= Flavor::kTuple) {
    meter.charge(static_cast<int64_t>(list_a->items.size() + list_b->items.size()));
    Values items = list_a->items;
    items.insert(items.end(), list_b->items.begin(), list_b->items.end());
    return make_sequence(list_a->flavor, std::move(items));
  }
  fail("cannot add '" + type_name(a) + "' and '" + type_name(b) + "'");
}

// string * n, list * n; nothing if the operands are others.
std::optional<Value> repeated(Meter& meter, const Value& a, const Value& b) {
  int64_t storage = 0;
  const int64_t* given = as_integer(b, storage);
  if (given == nullptr) return std::nullopt;
  const int64_t count = std::max<int64_t>(*given, 0);
  const bool literal = b.scalar_literal();
  if (const Text* text = a.text()) {
    if (text->size() > 0 && count > meter.budget.output) {
      fail("string of more than " + std::to_string(meter.budget.output) + " bytes");
    }
    meter.charge_bytes(text->size() * static_cast<std::size_t>(count));
    Text out;
    out.markup = text->markup;
    for (int64_t i = 0; i < count && text->size() > 0; ++i) out.append(*text);
    return Value::string(literal ? std::move(out) : Text(out.bytes(), false));
  }
  const Sequence* list = a.sequence();
  if (list == nullptr || list->flavor > Flavor::kTuple) return std::nullopt;
  if (list->items.empty()) return a;
  meter.charge(count);
  meter.charge(count * static_cast<int64_t>(list->items.size()));
  Values items;
  for (int64_t i = 0; i < count; ++i) {
    items.insert(items.end(), list->items.begin(), list->items.end());
  }
  return make_sequence(list->flavor, std::move(items));
}

// Start, stop and step of a slice over `size` items, as Python's slice.indices() has them.
struct Bounds {
  int64_t start, stop, step, count;
};

int64_t slice_index(const Value& value, int64_t absent) {
  if (value.is_none()) return absent;
  return integer(value, "slice index");
}

Bounds slice_bounds(int64_t size, const Value& start, const Value& stop, const Value& step) {
  Bounds b{0, 0, slice_index(step, 1), 0};
  if (b.step == 0) fail("slice step cannot be zero");
  const bool back = b.step < 0;
  const int64_t low = back ? -1 : 0, high = back ? size - 1 : size;
  const auto place = [&](const Value& value, int64_t absent) {
    int64_t at = slice_index(value, absent);
    if (value.is_none()) return at;
    if (at < 0) at = at < -size ? low : at + size;
    return std::clamp(at, low, high);
  };
  b.start = place(start, back ? high : low);
  b.stop = place(stop, back ? low : high);
  const int64_t span = back ? b.start - b.stop : b.stop - b.start;
  if (span <= 0) return b;
  // The step's absolute value could overflow only where it is far above any size.
  const int64_t stride = back ? -std::max(b.step, -size - 1) : b.step;
  b.count = (span - 1) / stride + 1;
  b.step = back ? -stride : stride;
  return b;
}

Text slice_text(const Text& text, const Value& start, const Value& stop, const Value& step) {
  const std::string& bytes = text.bytes();
  const Bounds b = slice_bounds(count_characters(bytes), start, stop, step);
  if (b.count == 0) return {};
  if (b.step == 1) {
    const std::size_t begin = offset_of(bytes, b.start);
    const std::string_view rest = std::string_view(bytes).substr(begin);
    return text.slice(begin, begin + offset_of(rest, b.count));
  }
  std::vector<std::size_t> offsets;
  for (std::size_t i = 0; i < bytes.size();) {
    offsets.push_back(i);
    i += static_cast<std::size_t>(code_point_at(bytes, i).length);
  }
  offsets.push_back(bytes.size());
  Text out;
  out.markup = text.markup;
  for (int64_t i = 0, at = b.start; i < b.count; ++i, at += b.step) {
    const auto k = static_cast<std::size_t>(at);
    out.append(text.slice(offsets[k], offsets[k + 1]));
  }
  return out;
}

const Value* list_item(const Values& items, int64_t index) {
  const auto size = static_cast<int64_t>(items.size());
  if (index < 0) index += size;
  return index < 0 || index >= size ? nullptr : &items[static_cast<std::size_t>(index)];
}

std::optional<Value> integer_item(const Value& object, int64_t index) {
  if (const Text* text = object.text()) {
    const int64_t size = count_characters(text->bytes());
    if (index < 0) index += size;
    if (index < 0 || index >= size) return std::nullopt;
    const std::size_t begin = offset_of(text->bytes(), index);
    const int length = code_point_at(text->bytes(), begin).length;
    return Value::string(text->slice(begin, begin + static_cast<std::size_t>(length)));
  }
  const Sequence* sequence = object.sequence();
  if (sequence == nullptr || sequence->flavor > Flavor::kRange) return std::nullopt;
  const Value* found = list_item(sequence->items, index);
  return found == nullptr ? std::nullopt : std::optional<Value>(*found);
}

Value no_member(const Value& object, const Value& key) {
  const bool name = key.text() != nullptr;
  return Value::undefined(type_name(object) + " object has no " +
                          (name ? "attribute " : "element ") + repr(key).bytes());
}

}  // namespace

void Meter::charge(int64_t count) {
  steps += std::min(count, budget.steps + 1);
  if (steps > budget.steps) {
    fail("the template takes more than " + std::to_string(budget.steps) + " steps");
  }
}

void Meter::charge_bytes(std::size_t bytes) {
  if (bytes > static_cast<std::size_t>(budget.output)) {
    fail("string of more than " + std::to_string(budget.output) + " bytes");
  }
  charge(static_cast<int64_t>(bytes / kBytesPerStep));
}

void Meter::charge_walk(const Value& value) {
  charge(extent_of(value).weight / static_cast<int64_t>(kBytesPerStep));
}

Value binary(Meter& meter, Op op, const Value& a, const Value& b) {
  if (op == Op::kConcat) {
    meter.charge_walk(a);
    meter.charge_walk(b);
    Text left = to_text(a), right = to_text(b);
    left.markup = false;
    return joined_texts(meter, left, right);
  }
  if (op == Op::kMod && a.text() != nullptr) fail("formatting with % is not supported");
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) fail(value->why_undefined());
  }
  if (is_number(a) && is_number(b)) {
    const Number x = number(a, ""), y = number(b, "");
    const bool literal = a.scalar_literal() && b.scalar_literal();
    return x.is_float || y.is_float ? floats(op, x.f, y.f, literal)
                                    : integers(op, x.i, y.i, literal);
  }
  if (op == Op::kAdd) return added(meter, a, b);
  if (op == Op::kMul) {
    if (std::optional<Value> result = repeated(meter, a, b)) return *result;
    if (std::optional<Value> result = repeated(meter, b, a)) return *result;
  }
  fail("cannot compute '" + type_name(a) + "' " + std::string(op_name(op)) + " '" + type_name(b) +
       "'");
}

bool compare(Meter& meter, Op op, const Value& a, const Value& b) {
  meter.charge_walk(a);
  meter.charge_walk(b);
  switch (op) {
    case Op::kEq:
      return equal(a, b);
    case Op::kNe:
      return !equal(a, b);
    case Op::kLt:
      return less(a, b);
    case Op::kGt:
      return less(b, a);
    case Op::kLe:
    case Op::kGe: {
      const Value &low = op == Op::kLe ? a : b, &high = op == Op::kLe ? b : a;
      const bool below = less(low, high);  // fails if they have no order
      return below || equal(low, high);
    }
    case Op::kIn:
      return contains(b, a);
    default:
      return !contains(b, a);
  }
}

Value unary(Op op, const Value& value) {
  if (op == Op::kNot) return Value(!truthy(value), value.literal());
  const Number x = number(value, op == Op::kNeg ? "-" : "+");
  if (x.is_float) return Value(op == Op::kNeg ? -x.f : x.f, value.scalar_literal());
  if (op == Op::kPos) return Value(x.i, value.scalar_literal());
  int64_t result = 0;
  check_overflow(__builtin_sub_overflow(int64_t{0}, x.i, &result));
  return Value(result, value.scalar_literal());
}

Value attribute(const Value& object, const std::string& name) {
  if (object.is_undefined()) fail(object.why_undefined());
  if (const auto* space = object.get<std::shared_ptr<Namespace>>()) {
    const Value* found = (*space)->find(name);
    return found != nullptr ? *found : no_member(object, Value::string(name, true));
  }
  if (has_method(object, name)) return bound_method(object, name);
  if (name.rfind("__", 0) == 0 && name.size() > 4 && name.substr(name.size() - 2) == "__") {
    fail("attribute '" + name + "' is not safe to use");
  }
  if (const Dict* dict = object.dict()) {
    if (const Value* found = dict->find(name)) return *found;
  }
  return no_member(object, Value::string(name, true));
}

Value item(const Value& object, const Value& key) {
  if (object.is_undefined()) fail(object.why_undefined());
  if (const Dict* dict = object.dict(); dict != nullptr && hashable(key)) {
    if (const Value* found = dict->find(key)) return *found;
  }
  int64_t storage = 0;
  if (const int64_t* index = as_integer(key, storage)) {
    if (std::optional<Value> found = integer_item(object, *index)) return *found;
  }
  if (const Text* name = key.text(); name != nullptr && object.dict() == nullptr) {
    return attribute(object, name->bytes());
  }
  if (const Text* name = key.text(); name != nullptr && has_method(object, name->bytes())) {
    return bound_method(object, name->bytes());
  }
  return no_member(object, key);
}

Value slice(Meter& meter, const Value& object, const Value& start, const Value& stop,
            const Value& step) {
  if (object.is_undefined()) fail(object.why_undefined());
  meter.charge_walk(object);
  if (const Text* text = object.text()) {
    return Value::string(slice_text(*text, start, stop, step));
  }
  const Sequence* sequence = object.sequence();
  if (sequence == nullptr || sequence->flavor > Flavor::kRange) {
    fail(in_quotes(type_name(object)) + " object has no slices");
  }
  const auto size = static_cast<int64_t>(sequence->items.size());
  const Bounds b = slice_bounds(size, start, stop, step);
  if (sequence->flavor == Flavor::kRange) {
    const auto at = [sequence](int64_t i) { return sequence->start + i * sequence->step; };
    Value out = make_range(at(b.start), at(b.stop), sequence->step * b.step, b.count, true);
    return out;
  }
  Values items;
  items.reserve(static_cast<std::size_t>(b.count));
  for (int64_t i = 0, at = b.start; i < b.count; ++i, at += b.step) {
    items.push_back(sequence->items[static_cast<std::size_t>(at)]);
  }
  return make_sequence(sequence->flavor, std::move(items));
}

Value range(Meter& meter, int64_t start, int64_t stop, int64_t step, bool literal) {
  if (step == 0) fail("range() step must not be zero");
  // Unsigned, so that no pair of ends overflows.
  const uint64_t span = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                 : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
  const bool empty = step > 0 ? start >= stop : start <= stop;
  const uint64_t count = empty ? 0 : (span - 1) / stride + 1;
  if (count > static_cast<uint64_t>(meter.budget.range)) {
    fail("range() of more than " + std::to_string(meter.budget.range) + " items");
  }
  meter.charge(static_cast<int64_t>(count));
  return make_range(start, stop, step, static_cast<int64_t>(count), literal);
}

Text escaped(const Text& text) {
  if (text.markup) return text;
  Text out;
  for (std::size_t i = 0, done = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text.bytes()[i] : '\0';
    const std::string_view entity = i == text.size() ? ""
                                    : c == '&'       ? "&amp;"
                                    : c == '<'       ? "&lt;"
                                    : c == '>'       ? "&gt;"
                                    : c == '\''      ? "&#39;"
                                    : c == '"'       ? "&#34;"
                                                     : "";
    if (entity.empty() && i < text.size()) continue;
    out.append(text.slice(done, i));
    out.append(entity, text.literal());
    done = i + 1;
  }
  out.markup = true;
  return out;
}

}  // namespace crumb::tokenizer::jinja
