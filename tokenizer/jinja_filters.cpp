#include "tokenizer/jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <limits>
#include <optional>

#include "tokenizer/jinja_numbers.h"
#include "tokenizer/jinja_unicode.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer::jinja {
namespace {

using Filter = Value (*)(Meter&, const Value& in, const Bound& args);
using FreeFilter = Value (*)(Meter&, const Value& in, const Arguments& args);

// Items of a sequence, counted as work.
Values items_of(Meter& meter, const Value& value) {
  if (value.text() != nullptr) meter.charge(static_cast<int64_t>(value.text()->size()));
  Values items = iterate(value);
  meter.charge(static_cast<int64_t>(items.size()));
  return items;
}

Text text_of(Meter& meter, const Value& value) {
  meter.charge_walk(value);
  return to_text(value);
}

// Text

template <std::string (*kFunction)(std::string_view)>
Value filter_case(Meter& meter, const Value& in, const Bound&) {
  const Text text = text_of(meter, in);
  Text out(kFunction(text.bytes()), text.literal());
  out.markup = text.markup;
  return Value::string(std::move(out));
}

// Words start after white space and -([{< here, unlike in str.title().
std::string title_after_breaks(std::string_view text) {
  std::string out;
  std::size_t begin = 0;
  const auto is_break = [](uint32_t c) {
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  while (begin < text.size()) {
    std::size_t end = begin;
    const bool inside = !is_break(code_point_at(text, begin).value);
    while (end < text.size() && is_break(code_point_at(text, end).value) != inside) {
      end += static_cast<std::size_t>(code_point_at(text, end).length);
    }
    const auto first = static_cast<std::size_t>(code_point_at(text, begin).length);
    out += to_upper(text.substr(begin, first));
    out += to_lower(text.substr(begin + first, end - begin - first));
    begin = end;
  }
  return out;
}

Value filter_trim(Meter& meter, const Value& in, const Bound& args) {
  return Value::string(stripped(text_of(meter, in), args[0], true, true));
}

Value filter_string(Meter& meter, const Value& in, const Bound&) {
  return in.text() != nullptr ? in : Value::string(text_of(meter, in));
}

Value filter_replace(Meter& meter, const Value& in, const Bound& args) {
  const int64_t count = args.given(2) ? integer(*args[2], "replace") : -1;
  Text text = text_of(meter, in);
  text.markup = false;
  return Value::string(
      replaced(meter, text, text_of(meter, *args[0]), text_of(meter, *args[1]), count));
}

Value filter_safe(Meter& meter, const Value& in, const Bound&) {
  Text text = text_of(meter, in);
  text.markup = true;
  return Value::string(std::move(text));
}

Value filter_escape(Meter& meter, const Value& in, const Bound&) {
  Text out = escaped(text_of(meter, in));
  meter.charge_bytes(out.size());
  return Value::string(std::move(out));
}

Value filter_indent(Meter& meter, const Value& in, const Bound& args) {
  const Text& text = string_of(in, "indent");
  const bool literal = text.literal() && (args[0] == nullptr || args[0]->literal());
  std::string indent(4, ' ');
  if (args[0] != nullptr && args[0]->text() != nullptr) {
    indent = args[0]->text()->bytes();
  } else if (args[0] != nullptr) {
    const int64_t width = std::max<int64_t>(integer(*args[0], "indent"), 0);
    meter.charge_bytes(static_cast<std::size_t>(width));
    indent.assign(static_cast<std::size_t>(width), ' ');
  }
  const bool first = args.truth(1, false), blank = args.truth(2, false);
  const std::string bytes = text.bytes() + '\n';  // as Jinja does, so that a last line end counts
  std::string out = first ? indent : "";
  std::size_t begin = 0;
  for (std::size_t i = 0; i < bytes.size();) {
    const std::size_t length = line_end_length(bytes, i);
    if (length == 0) {
      ++i;
      continue;
    }
    if (begin > 0) out += '\n';
    if (begin > 0 && (blank || i > begin)) out += indent;
    out.append(bytes, begin, i - begin);
    if (out.size() > static_cast<std::size_t>(meter.budget.output)) break;
    begin = i += length;
  }
  meter.charge_bytes(out.size());
  Text result(std::move(out), literal);
  result.markup = text.markup;
  return Value::string(std::move(result));
}

Value filter_tojson(Meter& meter, const Value& in, const Bound& args) {
  JsonStyle style;
  style.ensure_ascii = args.truth(0, false);
  style.sort_keys = args.truth(3, false);
  if (args.given(1)) {
    style.has_indent = true;
    style.item_separator = ",";  // json.dumps leaves the blank out at a line's end
    if (const Text* text = args[1]->text()) {
      style.indent = text->bytes();
    } else {
      const int64_t width = std::max<int64_t>(integer(*args[1], "tojson indent"), 0);
      if (width > 64) fail("tojson: indent of more than 64");
      style.indent.assign(static_cast<std::size_t>(width), ' ');
    }
    if (style.indent.size() > 64) fail("tojson: indent of more than 64");
  }
  if (args.given(2)) {
    const Values parts = items_of(meter, *args[2]);
    if (parts.size() != 2) fail("tojson: separators are two strings");
    style.item_separator = string_of(parts[0], "tojson separators").bytes();
    style.key_separator = string_of(parts[1], "tojson separators").bytes();
  }
  meter.charge_walk(in);
  Text out = to_json(in, style, static_cast<std::size_t>(meter.budget.output));
  meter.charge_bytes(out.size());
  return Value::string(std::move(out));
}

// Numbers

Value filter_abs(Meter&, const Value& in, const Bound&) {
  const Number x = number(in, "abs");
  if (x.is_float) return Value(std::fabs(x.f), in.scalar_literal());
  return x.i < 0 ? unary(Op::kNeg, in) : Value(x.i, in.scalar_literal());
}

std::optional<int64_t> truncated(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::fabs(value) >= 9.2e18) fail("integer does not fit in 64 bits");
  return static_cast<int64_t>(value);
}

Value filter_int(Meter& meter, const Value& in, const Bound& args) {
  const Value standard = args[0] == nullptr ? Value(int64_t{0}) : *args[0];
  if (const Text* text = in.text()) {
    meter.charge_walk(in);
    const int64_t base = args[1] == nullptr ? 10 : integer(*args[1], "int base");
    if (base != 0 && (base < 2 || base > 36)) fail("int: base must be 0 or 2 to 36");
    std::optional<int64_t> value = parse_integer(text->bytes(), base);
    if (!value) {
      const std::optional<double> real = parse_float(text->bytes());
      if (real) value = truncated(*real);
    }
    return value ? Value(*value, text->literal()) : standard;
  }
  if (in.is_undefined()) fail(in.why_undefined());
  if (!is_number(in)) return standard;
  const Number x = number(in, "int");
  if (!x.is_float) return Value(x.i, in.scalar_literal());
  if (std::isinf(x.f)) fail("int: cannot convert float infinity to integer");
  const std::optional<int64_t> value = truncated(x.f);
  return value ? Value(*value, in.scalar_literal()) : standard;
}

Value filter_float(Meter& meter, const Value& in, const Bound& args) {
  if (in.is_undefined()) fail(in.why_undefined());
  std::optional<double> value;
  if (const Text* text = in.text()) {
    meter.charge_walk(in);
    value = parse_float(text->bytes());
  } else if (is_number(in)) {
    value = number(in, "float").f;
  }
  if (value) return Value(*value, in.literal());
  return args[0] == nullptr ? Value(0.0) : *args[0];
}

Value filter_round(Meter&, const Value& in, const Bound& args) {
  const int64_t precision = args[0] == nullptr ? 0 : integer(*args[0], "round");
  const std::string method = args[1] == nullptr ? "common" : string_of(*args[1], "round").bytes();
  if (method != "common" && method != "ceil" && method != "floor") {
    fail("round: method must be common, ceil or floor");
  }
  const Number x = number(in, "round");
  const bool literal = in.scalar_literal();
  if (method == "common") {
    if (x.is_float) return Value(round_decimals(x.f, precision), literal);
    if (precision < 0) fail("round: negative precision of an integer is not supported");
    return Value(x.i, literal);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = x.f * scale;
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale, literal);
}

// Sequences and others

Value filter_default(Meter&, const Value& in, const Bound& args) {
  if (!in.is_undefined() && (!args.truth(1, false) || truthy(in))) return in;
  return args[0] == nullptr ? Value::string("", true) : *args[0];
}

Value filter_length(Meter& meter, const Value& in, const Bound&) {
  if (in.text() != nullptr) meter.charge_walk(in);
  return Value(length(in), in.literal());
}

Value filter_items(Meter& meter, const Value& in, const Bound&) {
  if (in.is_undefined()) return make_sequence(Flavor::kIterator, {});
  if (in.dict() == nullptr) fail("items: expected a mapping, found " + type_name(in));
  Values pairs;
  meter.charge(length(in));
  for (const auto& [key, value] : in.dict()->entries) {
    pairs.push_back(make_sequence(Flavor::kTuple, {key, value}));
  }
  return make_sequence(Flavor::kIterator, std::move(pairs));
}

Value filter_list(Meter& meter, const Value& in, const Bound&) {
  return make_sequence(Flavor::kList, items_of(meter, in));
}

Value filter_first(Meter& meter, const Value& in, const Bound&) {
  if (Sequence* sequence = in.sequence(); sequence && sequence->flavor == Flavor::kIterator) {
    if (sequence->items.empty()) return Value::undefined("no first item, sequence was empty");
    Value first = sequence->items.front();
    meter.charge(static_cast<int64_t>(sequence->items.size()));
    sequence->items.erase(sequence->items.begin());
    return first;
  }
  const Values items = items_of(meter, in);
  return items.empty() ? Value::undefined("no first item, sequence was empty") : items.front();
}

Value filter_last(Meter& meter, const Value& in, const Bound&) {
  if (const Sequence* sequence = in.sequence();
      sequence != nullptr && sequence->flavor == Flavor::kIterator) {
    fail("last: 'generator' object is not reversible; use |list before");
  }
  const Values items = items_of(meter, in);
  return items.empty() ? Value::undefined("no last item, sequence was empty") : items.back();
}

Value filter_reverse(Meter& meter, const Value& in, const Bound&) {
  if (in.text() != nullptr) return slice(meter, in, Value(), Value(), Value(int64_t{-1}));
  const Sequence* sequence = in.sequence();
  const bool list = sequence != nullptr && sequence->flavor == Flavor::kIterator;
  Values items = items_of(meter, in);
  std::reverse(items.begin(), items.end());
  return make_sequence(list ? Flavor::kList : Flavor::kIterator, std::move(items));
}

// The value at a path like "function.name" or "args.0"; `standard` (or null) stands for what is
// undefined on the way.
Value at_path(Meter& meter, Value value, const Value& path, const Value* standard = nullptr) {
  if (path.is_none()) return value;
  const auto settled = [standard](Value found) {
    return found.is_undefined() && standard != nullptr ? *standard : std::move(found);
  };
  if (path.text() == nullptr) return settled(item(value, path));
  std::string_view rest = path.text()->bytes();
  while (true) {
    meter.charge(1);
    const std::string_view part = rest.substr(0, rest.find('.'));
    int64_t index = 0;
    const auto [end, code] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool digits =
        !part.empty() && code == std::errc() && end == part.data() + part.size() && part[0] != '-';
    value = settled(item(value, digits ? Value(index) : Value::string(std::string(part), true)));
    if (part.size() == rest.size()) return value;
    rest.remove_prefix(part.size() + 1);
  }
}

// What sorting and comparing look at: strings in lower case unless their case counts.
Value key_of(const Value& value, bool case_sensitive) {
  const Text* text = value.text();
  if (case_sensitive || text == nullptr) return value;
  return Value::string(to_lower(text->bytes()), text->literal());
}

Values sorted(Meter& meter, const Values& items, const std::vector<Value>& keys, bool reverse) {
  std::vector<std::size_t> order(items.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto before = [&](std::size_t a, std::size_t b) {
    meter.charge(1);
    return reverse ? less(keys[b], keys[a]) : less(keys[a], keys[b]);
  };
  std::stable_sort(order.begin(), order.end(), before);
  Values out;
  out.reserve(items.size());
  for (const std::size_t i : order) out.push_back(items[i]);
  return out;
}

Value filter_sort(Meter& meter, const Value& in, const Bound& args) {
  const bool reverse = args.truth(0, false), case_sensitive = args.truth(1, false);
  const Values items = items_of(meter, in);
  Values paths;
  if (args.given(2) && args[2]->text() != nullptr) {
    std::string_view rest = args[2]->text()->bytes();
    for (bool more = true; more;) {
      const std::size_t comma = rest.find(',');
      paths.push_back(Value::string(std::string(rest.substr(0, comma)), true));
      more = comma != std::string_view::npos;
      if (more) rest.remove_prefix(comma + 1);
    }
  } else {
    paths.push_back(args.given(2) ? *args[2] : Value());
  }
  std::vector<Value> keys;
  for (const Value& item : items) {
    Values key;
    for (const Value& path : paths) {
      key.push_back(key_of(at_path(meter, item, path), case_sensitive));
    }
    keys.push_back(make_sequence(Flavor::kList, std::move(key)));
  }
  return make_sequence(Flavor::kList, sorted(meter, items, keys, reverse));
}

Value filter_dictsort(Meter& meter, const Value& in, const Bound& args) {
  if (in.is_undefined()) fail(in.why_undefined());
  if (in.dict() == nullptr) fail("dictsort: expected a mapping, found " + type_name(in));
  const std::string by = args[1] == nullptr ? "key" : string_of(*args[1], "dictsort").bytes();
  if (by != "key" && by != "value") fail("dictsort: sort by either 'key' or 'value'");
  Values pairs;
  std::vector<Value> keys;
  for (const auto& [key, value] : in.dict()->entries) {
    meter.charge(1);
    pairs.push_back(make_sequence(Flavor::kTuple, {key, value}));
    keys.push_back(key_of(by == "key" ? key : value, args.truth(0, false)));
  }
  return make_sequence(Flavor::kList, sorted(meter, pairs, keys, args.truth(2, false)));
}

Value filter_unique(Meter& meter, const Value& in, const Bound& args) {
  Values out, seen;
  for (const Value& item : items_of(meter, in)) {
    const Value path = args[1] == nullptr ? Value() : *args[1];
    Value key = key_of(at_path(meter, item, path), args.truth(0, false));
    if (!hashable(key)) fail("unique: unhashable type: '" + type_name(key) + "'");
    meter.charge(static_cast<int64_t>(seen.size()));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& k) { return equal(k, key); })) {
      continue;
    }
    seen.push_back(std::move(key));
    out.push_back(item);
  }
  return make_sequence(Flavor::kIterator, std::move(out));
}

Value extreme(Meter& meter, const Value& in, const Bound& args, bool largest) {
  const Values items = items_of(meter, in);
  if (items.empty()) return Value::undefined("no aggregated item, sequence was empty");
  const Value path = args[1] == nullptr ? Value() : *args[1];
  const auto key = [&](const Value& item) {
    return key_of(at_path(meter, item, path), args.truth(0, false));
  };
  std::size_t best = 0;
  Value best_key = key(items[0]);
  for (std::size_t i = 1; i < items.size(); ++i) {
    Value other = key(items[i]);
    if (largest ? less(best_key, other) : less(other, best_key)) {
      best = i;
      best_key = std::move(other);
    }
  }
  return items[best];
}
Value filter_min(Meter& meter, const Value& in, const Bound& args) {
  return extreme(meter, in, args, false);
}
Value filter_max(Meter& meter, const Value& in, const Bound& args) {
  return extreme(meter, in, args, true);
}

Value filter_sum(Meter& meter, const Value& in, const Bound& args) {
  Value total = args[1] == nullptr ? Value(int64_t{0}) : *args[1];
  const Value path = args[0] == nullptr ? Value() : *args[0];
  if (total.text() != nullptr) fail("sum: cannot sum strings");
  for (const Value& item : items_of(meter, in)) {
    total = binary(meter, Op::kAdd, total, at_path(meter, item, path));
  }
  return total;
}

Value filter_join(Meter& meter, const Value& in, const Bound& args) {
  const Text separator = args[0] == nullptr ? Text() : text_of(meter, *args[0]);
  const Value path = args[1] == nullptr ? Value() : *args[1];
  Text out;
  bool first = true;
  std::size_t charged = 0;
  for (const Value& item : items_of(meter, in)) {
    if (!first) out.append(separator);
    first = false;
    out.append(text_of(meter, at_path(meter, item, path)));
    meter.charge_bytes(out.size() - charged);
    charged = out.size();
    if (charged > static_cast<std::size_t>(meter.budget.output)) meter.charge_bytes(charged);
  }
  return Value::string(std::move(out));
}

// Filters that apply others

// The arguments after the first `count`.
Arguments after(const Arguments& args, std::size_t count) {
  Arguments rest;
  for (std::size_t i = count; i < args.positional.size(); ++i) {
    rest.positional.push_back(args.positional[i]);
  }
  rest.keywords = args.keywords;
  return rest;
}

Value filter_map(Meter& meter, const Value& in, const Arguments& args) {
  if (!truthy(in)) return make_sequence(Flavor::kIterator, {});
  Values out;
  if (args.positional.empty()) {
    const Bound bound("map", "attribute,default", 1, args);
    for (const Value& item : items_of(meter, in)) {
      out.push_back(at_path(meter, item, *bound[0], bound.given(1) ? bound[1] : nullptr));
    }
  } else {
    const std::string& name = string_of(args.positional[0], "map").bytes();
    const Arguments rest = after(args, 1);
    for (const Value& item : items_of(meter, in)) {
      out.push_back(apply_filter(meter, name, item, rest));
    }
  }
  return make_sequence(Flavor::kIterator, std::move(out));
}

template <bool kKeep, bool kAttribute>
Value filter_select(Meter& meter, const Value& in, const Arguments& args) {
  if (!truthy(in)) return make_sequence(Flavor::kIterator, {});
  constexpr std::size_t kSkip = kAttribute ? 1 : 0;
  if (args.positional.size() < kSkip) fail("the name of an attribute is missing");
  const bool has_test = args.positional.size() > kSkip;
  const std::string name = has_test ? string_of(args.positional[kSkip], "test").bytes() : "";
  const Arguments rest = after(args, kSkip + 1);
  Values out;
  for (const Value& item : items_of(meter, in)) {
    const Value value = kAttribute ? at_path(meter, item, args.positional[0]) : item;
    if ((has_test ? apply_test(meter, name, value, rest) : truthy(value)) == kKeep) {
      out.push_back(item);
    }
  }
  return make_sequence(Flavor::kIterator, std::move(out));
}

struct FilterRow {
  std::string_view name;
  std::string_view signature;
  int required;
  Filter function;
  FreeFilter free;  // takes its arguments as they are
};

constexpr FilterRow kFilters[] = {
    {"abs", "", 0, filter_abs, nullptr},
    {"capitalize", "", 0, filter_case<capitalize>, nullptr},
    {"count", "", 0, filter_length, nullptr},
    {"d", "default_value,boolean", 0, filter_default, nullptr},
    {"default", "default_value,boolean", 0, filter_default, nullptr},
    {"dictsort", "case_sensitive,by,reverse", 0, filter_dictsort, nullptr},
    {"e", "", 0, filter_escape, nullptr},
    {"escape", "", 0, filter_escape, nullptr},
    {"first", "", 0, filter_first, nullptr},
    {"float", "default", 0, filter_float, nullptr},
    {"indent", "width,first,blank", 0, filter_indent, nullptr},
    {"int", "default,base", 0, filter_int, nullptr},
    {"items", "", 0, filter_items, nullptr},
    {"join", "d,attribute", 0, filter_join, nullptr},
    {"last", "", 0, filter_last, nullptr},
    {"length", "", 0, filter_length, nullptr},
    {"list", "", 0, filter_list, nullptr},
    {"lower", "", 0, filter_case<to_lower>, nullptr},
    {"map", "", 0, nullptr, filter_map},
    {"max", "case_sensitive,attribute", 0, filter_max, nullptr},
    {"min", "case_sensitive,attribute", 0, filter_min, nullptr},
    {"reject", "", 0, nullptr, filter_select<false, false>},
    {"rejectattr", "", 0, nullptr, filter_select<false, true>},
    {"replace", "old,new,count", 2, filter_replace, nullptr},
    {"reverse", "", 0, filter_reverse, nullptr},
    {"round", "precision,method", 0, filter_round, nullptr},
    {"safe", "", 0, filter_safe, nullptr},
    {"select", "", 0, nullptr, filter_select<true, false>},
    {"selectattr", "", 0, nullptr, filter_select<true, true>},
    {"sort", "reverse,case_sensitive,attribute", 0, filter_sort, nullptr},
    {"string", "", 0, filter_string, nullptr},
    {"sum", "attribute,start", 0, filter_sum, nullptr},
    {"title", "", 0, filter_case<title_after_breaks>, nullptr},
    {"tojson", "ensure_ascii,indent,separators,sort_keys", 0, filter_tojson, nullptr},
    {"trim", "chars", 0, filter_trim, nullptr},
    {"unique", "case_sensitive,attribute", 0, filter_unique, nullptr},
    {"upper", "", 0, filter_case<to_upper>, nullptr},
};

const FilterRow* filter_row(std::string_view name) {
  const auto row = std::find_if(std::begin(kFilters), std::end(kFilters),
                                [name](const FilterRow& r) { return r.name == name; });
  return row == std::end(kFilters) ? nullptr : row;
}

std::string unknown_filter(std::string_view name) {
  return "filter '" + std::string(name) + "' is unknown or not supported";
}

}  // namespace

bool is_filter(std::string_view name) { return filter_row(name) != nullptr; }

std::string check_filter(const Expr& filter) {
  const FilterRow* row = filter_row(filter.name);
  if (row == nullptr) return unknown_filter(filter.name);
  if (row->free != nullptr) return {};
  std::vector<std::string_view> keywords;
  for (const auto& keyword : filter.keywords) keywords.push_back(keyword.first);
  return check_arguments(filter.name, row->signature, row->required, filter.items.size() - 1,
                         keywords);
}

Value apply_filter(Meter& meter, std::string_view name, const Value& input,
                   const Arguments& arguments) {
  const FilterRow* row = filter_row(name);
  if (row == nullptr) fail(unknown_filter(name));
  meter.charge(1);
  if (row->free != nullptr) return row->free(meter, input, arguments);
  return row->function(meter, input, Bound(row->name, row->signature, row->required, arguments));
}

}  // namespace crumb::tokenizer::jinja
