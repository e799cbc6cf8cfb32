#include "tokenizer/jinja_methods.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>

#include "tokenizer/jinja_unicode.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer::jinja {
namespace {

constexpr unsigned kNoType = 0, kStr = 1, kDictType = 2, kListType = 4, kTupleType = 8,
                   kRangeType = 16, kIntType = 32, kFloatType = 64;

unsigned type_of(const Value& value) {
  if (value.text() != nullptr) return kStr;
  if (value.dict() != nullptr) return kDictType;
  if (const Sequence* sequence = value.sequence()) {
    return sequence->flavor == Flavor::kList    ? kListType
           : sequence->flavor == Flavor::kTuple ? kTupleType
           : sequence->flavor == Flavor::kRange ? kRangeType
                                                : kNoType;
  }
  if (value.get<int64_t>() != nullptr || value.get<bool>() != nullptr) return kIntType;
  return value.get<double>() != nullptr ? kFloatType : kNoType;
}

// Characters as Python counts them, from bytes.
int64_t characters_before(const Text& text, std::size_t offset) {
  return count_characters(std::string_view(text.bytes()).substr(0, offset));
}

// The bytes that start and end arguments of find and its like cut out.
struct Window {
  std::size_t begin, end;
  bool valid;  // false where start is beyond the end
};

Window window(const Text& text, const Bound& args, std::size_t first) {
  const int64_t size = count_characters(text.bytes());
  const auto at = [&](std::size_t i, int64_t standard) {
    if (!args.given(i)) return standard;
    const int64_t index = integer(*args[i], "index");
    return index < 0 ? std::max<int64_t>(index < -size ? 0 : index + size, 0) : index;
  };
  const int64_t start = at(first, 0), stop = std::min(at(first + 1, size), size);
  if (start > stop) return {0, 0, false};
  return {offset_of(text.bytes(), start), offset_of(text.bytes(), stop), true};
}

using Method = Value (*)(Meter&, const Value& self, const Bound& args);

Value strip_with(const Value& self, const Bound& args, bool left, bool right) {
  return Value::string(stripped(*self.text(), args[0], left, right));
}
Value method_strip(Meter&, const Value& self, const Bound& args) {
  return strip_with(self, args, true, true);
}
Value method_lstrip(Meter&, const Value& self, const Bound& args) {
  return strip_with(self, args, true, false);
}
Value method_rstrip(Meter&, const Value& self, const Bound& args) {
  return strip_with(self, args, false, true);
}

template <std::string (*kFunction)(std::string_view)>
Value method_case(Meter& meter, const Value& self, const Bound&) {
  const Text& text = *self.text();
  meter.charge_bytes(text.size());
  Text out(kFunction(text.bytes()), text.literal());
  out.markup = text.markup;
  return Value::string(std::move(out));
}

// Pieces between white space.
Values split_space(const Text& text, int64_t limit) {
  Values out;
  const std::string_view bytes = text.bytes();
  std::size_t i = strip(bytes, nullptr, true, false).begin;
  while (i < bytes.size()) {
    if (limit >= 0 && static_cast<int64_t>(out.size()) == limit) {
      out.push_back(Value::string(text.slice(i, bytes.size())));
      return out;
    }
    std::size_t end = i;
    while (end < bytes.size()) {
      const CodePoint c = code_point_at(bytes, end);
      if (is_space(c.value)) break;
      end += static_cast<std::size_t>(c.length);
    }
    out.push_back(Value::string(text.slice(i, end)));
    i = end + strip(bytes.substr(end), nullptr, true, false).begin;
  }
  return out;
}

Values split_at(const Text& text, const std::string& separator, int64_t limit) {
  Values out;
  std::size_t begin = 0;
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    const std::size_t end = text.bytes().find(separator, begin);
    if (end == std::string::npos) break;
    out.push_back(Value::string(text.slice(begin, end)));
    begin = end + separator.size();
  }
  out.push_back(Value::string(text.slice(begin, text.size())));
  return out;
}

Values split_at_from_right(const Text& text, const std::string& separator, int64_t limit) {
  Values out;
  std::size_t end = text.size();
  while (limit < 0 || static_cast<int64_t>(out.size()) < limit) {
    if (end < separator.size()) break;
    const std::size_t begin = text.bytes().rfind(separator, end - separator.size());
    if (begin == std::string::npos) break;
    out.push_back(Value::string(text.slice(begin + separator.size(), end)));
    end = begin;
  }
  out.push_back(Value::string(text.slice(0, end)));
  std::reverse(out.begin(), out.end());
  return out;
}

Value split_with(Meter& meter, const Value& self, const Bound& args, bool from_right) {
  const Text& text = *self.text();
  meter.charge_bytes(text.size());
  const int64_t limit = args[1] == nullptr ? -1 : integer(*args[1], "maxsplit");
  Values pieces;
  if (!args.given(0)) {
    if (from_right && limit >= 0) fail("rsplit() at white space with a limit is not supported");
    pieces = split_space(text, limit);
  } else {
    const Text& separator = string_of(*args[0], "split()");
    if (separator.size() == 0) fail("split(): empty separator");
    pieces = (from_right ? split_at_from_right : split_at)(text, separator.bytes(), limit);
  }
  meter.charge(static_cast<int64_t>(pieces.size()));
  return make_sequence(Flavor::kList, std::move(pieces));
}
Value method_split(Meter& meter, const Value& self, const Bound& args) {
  return split_with(meter, self, args, false);
}
Value method_rsplit(Meter& meter, const Value& self, const Bound& args) {
  return split_with(meter, self, args, true);
}

Value method_splitlines(Meter& meter, const Value& self, const Bound& args) {
  const Text& text = *self.text();
  meter.charge_bytes(text.size());
  const bool keep = args.truth(0, false);
  Values lines;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = line_end_length(text.bytes(), i);
    if (length == 0) {
      ++i;
      continue;
    }
    lines.push_back(Value::string(text.slice(begin, keep ? i + length : i)));
    begin = i += length;
  }
  if (begin < text.size()) lines.push_back(Value::string(text.slice(begin, text.size())));
  meter.charge(static_cast<int64_t>(lines.size()));
  return make_sequence(Flavor::kList, std::move(lines));
}

Value affix_with(const Value& self, const Bound& args, bool prefix) {
  const Text& text = *self.text();
  const Window w = window(text, args, 1);
  const std::string_view piece = std::string_view(text.bytes()).substr(w.begin, w.end - w.begin);
  const auto matches = [&](const Value& affix) {
    const std::string& wanted = string_of(affix, prefix ? "startswith()" : "endswith()").bytes();
    if (!w.valid || wanted.size() > piece.size()) return false;
    return piece.substr(prefix ? 0 : piece.size() - wanted.size(), wanted.size()) == wanted;
  };
  const Sequence* choices = args[0]->sequence();
  const bool tuple = choices != nullptr && choices->flavor == Flavor::kTuple;
  const bool result = tuple ? std::any_of(choices->items.begin(), choices->items.end(), matches)
                            : matches(*args[0]);
  return Value(result, self.literal() && args[0]->literal());
}
Value method_startswith(Meter&, const Value& self, const Bound& args) {
  return affix_with(self, args, true);
}
Value method_endswith(Meter&, const Value& self, const Bound& args) {
  return affix_with(self, args, false);
}

Value method_replace(Meter& meter, const Value& self, const Bound& args) {
  const Text& from = string_of(*args[0], "replace()");
  const Text& to = string_of(*args[1], "replace()");
  if (self.text()->markup || from.markup || to.markup) {
    fail("replace() on escaped text is not supported");
  }
  const int64_t count = args[2] == nullptr ? -1 : integer(*args[2], "replace() count");
  return Value::string(replaced(meter, *self.text(), from, to, count));
}

int64_t find_with(const Value& self, const Bound& args, bool last) {
  const Text& text = *self.text();
  const std::string& wanted = string_of(*args[0], "find()").bytes();
  const Window w = window(text, args, 1);
  if (!w.valid) return -1;
  const std::string_view piece = std::string_view(text.bytes()).substr(w.begin, w.end - w.begin);
  const std::size_t at = last ? piece.rfind(wanted) : piece.find(wanted);
  return at == std::string_view::npos ? -1 : characters_before(text, w.begin + at);
}
Value method_find(Meter& meter, const Value& self, const Bound& args) {
  meter.charge_walk(self);
  return Value(find_with(self, args, false), self.literal());
}
Value method_rfind(Meter& meter, const Value& self, const Bound& args) {
  meter.charge_walk(self);
  return Value(find_with(self, args, true), self.literal());
}

Value method_count(Meter& meter, const Value& self, const Bound& args) {
  meter.charge_walk(self);
  int64_t count = 0;
  const Text* text = self.text();
  if (text == nullptr) {
    for (const Value& item : self.sequence()->items) count += equal(item, *args[0]) ? 1 : 0;
    return Value(count, self.literal());
  }
  const std::string& wanted = string_of(*args[0], "count()").bytes();
  if (wanted.empty()) return Value(count_characters(text->bytes()) + 1, self.literal());
  for (std::size_t at = text->bytes().find(wanted); at != std::string::npos;
       at = text->bytes().find(wanted, at + wanted.size())) {
    ++count;
  }
  return Value(count, self.literal());
}

Value method_index(Meter& meter, const Value& self, const Bound& args) {
  meter.charge_walk(self);
  if (self.text() != nullptr) {
    const int64_t at = find_with(self, args, false);
    if (at < 0) fail("index(): substring not found");
    return Value(at, self.literal());
  }
  const Values& items = self.sequence()->items;
  const auto found = std::find_if(items.begin(), items.end(),
                                  [&](const Value& item) { return equal(item, *args[0]); });
  if (found == items.end()) fail("index(): no such item");
  return Value(static_cast<int64_t>(found - items.begin()), self.literal());
}

Value method_join(Meter& meter, const Value& self, const Bound& args) {
  Text out;
  bool first = true;
  for (const Value& item : iterate(*args[0])) {
    const Text& piece = string_of(item, "join()");
    meter.charge(1);
    meter.charge_bytes(out.size() + self.text()->size() + piece.size());
    if (!first) out.append(*self.text());
    first = false;
    out.append(piece);
  }
  return Value::string(std::move(out));
}

Value affix_removed(const Value& self, const Bound& args, bool prefix) {
  const Text& text = *self.text();
  const std::string& affix = string_of(*args[0], "affix").bytes();
  const std::string_view bytes = text.bytes();
  if (affix.size() > bytes.size()) return self;
  const std::size_t rest = bytes.size() - affix.size();
  if (bytes.substr(prefix ? 0 : rest, affix.size()) != affix) return self;
  return Value::string(prefix ? text.slice(affix.size(), bytes.size()) : text.slice(0, rest));
}
Value method_removeprefix(Meter&, const Value& self, const Bound& args) {
  return affix_removed(self, args, true);
}
Value method_removesuffix(Meter&, const Value& self, const Bound& args) {
  return affix_removed(self, args, false);
}

Value method_get(Meter&, const Value& self, const Bound& args) {
  const Value* found = self.dict()->find(*args[0]);
  if (found != nullptr) return *found;
  return args[1] == nullptr ? Value() : *args[1];
}
template <Flavor kFlavor>
Value method_view(Meter& meter, const Value& self, const Bound&) {
  Values items;
  meter.charge(static_cast<int64_t>(self.dict()->entries.size()));
  for (const auto& [key, value] : self.dict()->entries) {
    if (kFlavor == Flavor::kItems) {
      items.push_back(make_sequence(Flavor::kTuple, {key, value}));
    } else {
      items.push_back(kFlavor == Flavor::kKeys ? key : value);
    }
  }
  return make_sequence(kFlavor, std::move(items));
}
Value method_copy(Meter&, const Value& self, const Bound&) { return self; }

struct MethodRow {
  std::string_view name;
  unsigned types;
  std::string_view signature;
  int required;
  Method function;
};

constexpr MethodRow kMethods[] = {
    {"strip", kStr, "chars/", 0, method_strip},
    {"lstrip", kStr, "chars/", 0, method_lstrip},
    {"rstrip", kStr, "chars/", 0, method_rstrip},
    {"split", kStr, "sep,maxsplit", 0, method_split},
    {"rsplit", kStr, "sep,maxsplit", 0, method_rsplit},
    {"splitlines", kStr, "keepends", 0, method_splitlines},
    {"startswith", kStr, "prefix/,start/,end/", 1, method_startswith},
    {"endswith", kStr, "suffix/,start/,end/", 1, method_endswith},
    {"upper", kStr, "", 0, method_case<to_upper>},
    {"lower", kStr, "", 0, method_case<to_lower>},
    {"title", kStr, "", 0, method_case<title_words>},
    {"capitalize", kStr, "", 0, method_case<capitalize>},
    {"replace", kStr, "old/,new/,count/", 2, method_replace},
    {"find", kStr, "sub/,start/,end/", 1, method_find},
    {"rfind", kStr, "sub/,start/,end/", 1, method_rfind},
    {"index", kStr, "sub/,start/,end/", 1, method_index},
    {"count", kStr, "sub/", 1, method_count},
    {"join", kStr, "iterable/", 1, method_join},
    {"removeprefix", kStr, "prefix/", 1, method_removeprefix},
    {"removesuffix", kStr, "suffix/", 1, method_removesuffix},
    {"get", kDictType, "key/,default/", 1, method_get},
    {"items", kDictType, "", 0, method_view<Flavor::kItems>},
    {"keys", kDictType, "", 0, method_view<Flavor::kKeys>},
    {"values", kDictType, "", 0, method_view<Flavor::kValues>},
    {"copy", kDictType | kListType, "", 0, method_copy},
    {"count", kListType | kTupleType | kRangeType, "value/", 1, method_count},
    {"index", kListType | kTupleType | kRangeType, "value/", 1, method_index},
};

// What Python has and this engine has not: silence about it would change what a template means.
struct ForeignRow {
  unsigned type;
  std::string_view names;
};
constexpr ForeignRow kForeign[] = {
    {kStr,
     " casefold center encode expandtabs format format_map isalnum isalpha isascii isdecimal "
     "isdigit isidentifier islower isnumeric isprintable isspace istitle isupper ljust maketrans "
     "partition rindex rjust rpartition swapcase translate zfill "},
    {kDictType, " clear fromkeys pop popitem setdefault update "},
    {kListType, " append clear extend insert pop remove reverse sort "},
    {kRangeType, " start stop step "},
    {kIntType,
     " as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag numerator real "
     "to_bytes "},
    {kFloatType, " as_integer_ratio conjugate fromhex hex imag is_integer real "},
};

const MethodRow* method_row(unsigned type, std::string_view name) {
  const auto row = std::find_if(std::begin(kMethods), std::end(kMethods), [&](const MethodRow& r) {
    return (r.types & type) != 0 && r.name == name;
  });
  return row == std::end(kMethods) ? nullptr : row;
}

std::vector<std::string_view> split_names(std::string_view names) {
  std::vector<std::string_view> out;
  while (!names.empty()) {
    const std::size_t end = std::min(names.find(','), names.size());
    out.push_back(names.substr(0, end));
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  return out;
}

}  // namespace

std::string check_arguments(std::string_view function, std::string_view signature, int required,
                            std::size_t positional, const std::vector<std::string_view>& keywords) {
  const std::vector<std::string_view> names = split_names(signature);
  const std::string who = std::string(function) + ": ";
  if (positional > names.size()) {
    return who + "expected at most " + std::to_string(names.size()) + " arguments, found " +
           std::to_string(positional);
  }
  std::vector<bool> given(names.size(), false);
  std::fill_n(given.begin(), positional, true);
  for (const std::string_view keyword : keywords) {
    const auto at = std::find(names.begin(), names.end(), keyword) - names.begin();
    if (static_cast<std::size_t>(at) == names.size()) {
      return who + "unexpected keyword argument '" + std::string(keyword) + "'";
    }
    if (given[static_cast<std::size_t>(at)]) {
      return who + "argument '" + std::string(keyword) + "' given twice";
    }
    given[static_cast<std::size_t>(at)] = true;
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(required); ++i) {
    std::string_view name = names[i];
    if (name.back() == '/') name.remove_suffix(1);
    if (!given[i]) return who + "argument '" + std::string(name) + "' is missing";
  }
  return {};
}

Bound::Bound(std::string_view function, std::string_view signature, int required,
             const Arguments& arguments) {
  std::vector<std::string_view> keywords;
  for (const auto& keyword : arguments.keywords) keywords.push_back(keyword.first);
  const std::string problem =
      check_arguments(function, signature, required, arguments.positional.size(), keywords);
  if (!problem.empty()) fail(problem);
  const std::vector<std::string_view> names = split_names(signature);
  for (const Value& value : arguments.positional) values_.push_back(&value);
  values_.resize(names.size(), nullptr);
  for (const auto& [name, value] : arguments.keywords) {
    const auto at = std::find(names.begin(), names.end(), std::string_view(name)) - names.begin();
    values_[static_cast<std::size_t>(at)] = &value;
  }
}

bool Bound::truth(std::size_t i, bool standard) const {
  return values_[i] == nullptr ? standard : truthy(*values_[i]);
}

bool has_method(const Value& object, const std::string& name) {
  const unsigned type = type_of(object);
  if (type == 0) return false;
  if (method_row(type, name) != nullptr) return true;
  for (const ForeignRow& row : kForeign) {
    if (row.type == type && row.names.find(" " + name + " ") != std::string_view::npos) {
      fail(in_quotes(name) + " of " + type_name(object) + " is not supported");
    }
  }
  return false;
}

Value bound_method(const Value& object, const std::string& name) {
  auto method = std::make_shared<Callable>();
  method->name = name;
  method->extent.add(object);
  method->self = object;
  return Value(std::shared_ptr<const Callable>(std::move(method)));
}

Value call_method(Meter& meter, const Callable& method, const Arguments& arguments) {
  const MethodRow* row = method_row(type_of(method.self), method.name);
  meter.charge_walk(method.self);
  return row->function(meter, method.self,
                       Bound(row->name, row->signature, row->required, arguments));
}

const Text& string_of(const Value& value, std::string_view what) {
  if (const Text* text = value.text()) return *text;
  if (value.is_undefined()) fail(value.why_undefined());
  fail(std::string(what) + ": expected a string, found " + type_name(value));
}

Text stripped(const Text& text, const Value* set, bool left, bool right) {
  const bool any = set == nullptr || set->is_none();
  const std::string_view chars = any ? std::string_view() : string_of(*set, "strip()").bytes();
  const Range kept = strip(text.bytes(), any ? nullptr : &chars, left, right);
  return text.slice(kept.begin, kept.end);
}

Text replaced(Meter& meter, const Text& text, const Text& from, const Text& to, int64_t count) {
  const std::string& bytes = text.bytes();
  const int64_t limit = count < 0 ? std::numeric_limits<int64_t>::max() : count;
  std::vector<std::size_t> places;
  std::size_t at = 0;
  while (static_cast<int64_t>(places.size()) < limit) {
    if (from.size() > 0) {
      at = bytes.find(from.bytes(), at);
      if (at == std::string::npos) break;
      places.push_back(at);
      at += from.size();
    } else {  // between all characters
      places.push_back(at);
      if (at >= bytes.size()) break;
      at += static_cast<std::size_t>(code_point_at(bytes, at).length);
    }
  }
  if (places.empty()) return text;
  if (to.size() > 0 && places.size() > static_cast<std::size_t>(meter.budget.output) / to.size()) {
    fail("string of more than " + std::to_string(meter.budget.output) + " bytes");
  }
  meter.charge_bytes(bytes.size() - places.size() * from.size() + places.size() * to.size());
  std::string out;
  std::size_t done = 0;
  for (const std::size_t place : places) {
    out.append(bytes, done, place - done);
    out += to.bytes();
    done = place + from.size();
  }
  out.append(bytes, done, std::string::npos);
  return Text(std::move(out), text.literal() && from.literal() && to.literal());
}

}  // namespace crumb::tokenizer::jinja
