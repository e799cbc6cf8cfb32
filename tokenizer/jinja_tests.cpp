// The tests of `is`.
#include <algorithm>
#include <iterator>

#include "tokenizer/jinja_filters.h"
#include "tokenizer/jinja_unicode.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer::jinja {
namespace {

using Test = bool (*)(Meter&, const Value& value, const Value* other);

bool is_integer(const Value& value) { return value.get<int64_t>() != nullptr; }

// value % other == rest
bool has_rest(Meter& meter, const Value& value, const Value& other, int64_t rest) {
  return equal(binary(meter, Op::kMod, value, other), Value(rest));
}

bool test_odd(Meter& meter, const Value& value, const Value*) {
  return has_rest(meter, value, Value(int64_t{2}), 1);
}
bool test_even(Meter& meter, const Value& value, const Value*) {
  return has_rest(meter, value, Value(int64_t{2}), 0);
}
bool test_divisibleby(Meter& meter, const Value& value, const Value* other) {
  return has_rest(meter, value, *other, 0);
}
bool test_defined(Meter&, const Value& value, const Value*) { return !value.is_undefined(); }
bool test_undefined(Meter&, const Value& value, const Value*) { return value.is_undefined(); }
bool test_none(Meter&, const Value& value, const Value*) { return value.is_none(); }
bool test_boolean(Meter&, const Value& value, const Value*) { return value.get<bool>() != nullptr; }
bool test_true(Meter&, const Value& value, const Value*) {
  return value.get<bool>() != nullptr && *value.get<bool>();
}
bool test_false(Meter&, const Value& value, const Value*) {
  return value.get<bool>() != nullptr && !*value.get<bool>();
}
bool test_integer(Meter&, const Value& value, const Value*) { return is_integer(value); }
bool test_float(Meter&, const Value& value, const Value*) { return value.get<double>() != nullptr; }
bool test_number(Meter&, const Value& value, const Value*) { return is_number(value); }
bool test_string(Meter&, const Value& value, const Value*) { return value.text() != nullptr; }
bool test_mapping(Meter&, const Value& value, const Value*) { return value.dict() != nullptr; }
bool test_iterable(Meter&, const Value& value, const Value*) { return is_iterable(value); }
bool test_sequence(Meter&, const Value& value, const Value*) {
  const Sequence* sequence = value.sequence();
  return is_iterable(value) && (sequence == nullptr || sequence->flavor <= Flavor::kRange);
}
bool test_callable(Meter&, const Value& value, const Value*) {
  // An undefined value has a call that fails.
  return value.is_undefined() || value.get<std::shared_ptr<const Callable>>() != nullptr;
}
bool test_escaped(Meter&, const Value& value, const Value*) {
  return value.text() != nullptr && value.text()->markup;
}

// Some letter with case, and none of the other case.
bool only_case(Meter& meter, const Value& value, bool upper) {
  meter.charge_walk(value);
  const Text text = to_text(value);
  bool some = false;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = code_point_at(text.bytes(), i);
    const bool low = is_lower(c.value), high = is_upper(c.value);
    if (upper ? low : high) return false;
    some = some || low || high;
    i += static_cast<std::size_t>(c.length);
  }
  return some;
}
bool test_lower(Meter& meter, const Value& value, const Value*) {
  return only_case(meter, value, false);
}
bool test_upper(Meter& meter, const Value& value, const Value*) {
  return only_case(meter, value, true);
}

template <Op kOp>
bool test_compare(Meter& meter, const Value& value, const Value* other) {
  return compare(meter, kOp, value, *other);
}

// Identity, where it does not hang on how values are stored.
bool test_sameas(Meter&, const Value& value, const Value* other) {
  const auto plain = [](const Value& v) { return v.is_none() || v.get<bool>() != nullptr; };
  if (plain(value) || plain(*other)) {
    return value.data().index() == other->data().index() && equal(value, *other);
  }
  fail("'sameas' is supported for True, False and None only");
}

bool test_filter(Meter&, const Value& value, const Value*);
bool test_test(Meter&, const Value& value, const Value*);

struct TestRow {
  std::string_view name;
  bool has_argument;
  Test function;
};

constexpr TestRow kTests[] = {
    {"odd", false, test_odd},
    {"even", false, test_even},
    {"divisibleby", true, test_divisibleby},
    {"defined", false, test_defined},
    {"undefined", false, test_undefined},
    {"filter", false, test_filter},
    {"test", false, test_test},
    {"none", false, test_none},
    {"boolean", false, test_boolean},
    {"true", false, test_true},
    {"false", false, test_false},
    {"integer", false, test_integer},
    {"float", false, test_float},
    {"number", false, test_number},
    {"string", false, test_string},
    {"mapping", false, test_mapping},
    {"iterable", false, test_iterable},
    {"sequence", false, test_sequence},
    {"callable", false, test_callable},
    {"escaped", false, test_escaped},
    {"lower", false, test_lower},
    {"upper", false, test_upper},
    {"sameas", true, test_sameas},
    {"in", true, test_compare<Op::kIn>},
    {"==", true, test_compare<Op::kEq>},
    {"eq", true, test_compare<Op::kEq>},
    {"equalto", true, test_compare<Op::kEq>},
    {"!=", true, test_compare<Op::kNe>},
    {"ne", true, test_compare<Op::kNe>},
    {">", true, test_compare<Op::kGt>},
    {"gt", true, test_compare<Op::kGt>},
    {"greaterthan", true, test_compare<Op::kGt>},
    {">=", true, test_compare<Op::kGe>},
    {"ge", true, test_compare<Op::kGe>},
    {"<", true, test_compare<Op::kLt>},
    {"lt", true, test_compare<Op::kLt>},
    {"lessthan", true, test_compare<Op::kLt>},
    {"<=", true, test_compare<Op::kLe>},
    {"le", true, test_compare<Op::kLe>},
};

const TestRow* test_row(std::string_view name) {
  const auto row = std::find_if(std::begin(kTests), std::end(kTests),
                                [name](const TestRow& r) { return r.name == name; });
  return row == std::end(kTests) ? nullptr : row;
}

bool test_test(Meter&, const Value& value, const Value*) {
  return value.text() != nullptr && test_row(value.text()->bytes()) != nullptr;
}
bool test_filter(Meter&, const Value& value, const Value*) {
  return value.text() != nullptr && is_filter(value.text()->bytes());
}

std::string_view test_signature(const TestRow& row) { return row.has_argument ? "other/" : ""; }

std::string unknown_test(std::string_view name) {
  return "test '" + std::string(name) + "' is unknown or not supported";
}

}  // namespace

std::string check_test(const Expr& test) {
  const TestRow* row = test_row(test.name);
  if (row == nullptr) return unknown_test(test.name);
  std::vector<std::string_view> keywords;
  for (const auto& keyword : test.keywords) keywords.push_back(keyword.first);
  return check_arguments(test.name, test_signature(*row), row->has_argument ? 1 : 0,
                         test.items.size() - 1, keywords);
}

bool apply_test(Meter& meter, std::string_view name, const Value& input,
                const Arguments& arguments) {
  const TestRow* row = test_row(name);
  if (row == nullptr) fail(unknown_test(name));
  const Bound bound(name, test_signature(*row), row->has_argument ? 1 : 0, arguments);
  return row->function(meter, input, row->has_argument ? bound[0] : nullptr);
}

}  // namespace crumb::tokenizer::jinja
