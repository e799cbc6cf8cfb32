#include "tokenizer/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "tokenizer/jinja_unicode.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer::jinja {
namespace {

constexpr std::string_view kSequenceTypes[] = {"list",      "tuple",       "range",     "generator",
                                               "dict_keys", "dict_values", "dict_items"};

bool is_string_key(const Value& key) { return key.text() != nullptr; }

// Keys that are no strings are searched one by one.
constexpr std::size_t kMaxOtherKeys = 256;

bool equal_items(const Values& a, const Values& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), equal);
}

bool equal_sequences(const Sequence& a, const Sequence& b) {
  if (&a == &b) return true;
  if (a.flavor != b.flavor || a.flavor == Flavor::kIterator) return false;
  if (a.flavor >= Flavor::kKeys) fail("comparing views of dicts is not supported");
  return equal_items(a.items, b.items);
}

bool equal_dicts(const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  return std::all_of(a.entries.begin(), a.entries.end(), [&b](const auto& entry) {
    const Value* other = b.find(entry.first);
    return other != nullptr && equal(entry.second, *other);
  });
}

bool equal_numbers(const Number& a, const Number& b) {
  if (!a.is_float && !b.is_float) return a.i == b.i;
  return a.f == b.f;
}

void append_repr(std::string& out, std::string_view text) {
  const bool use_double =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = use_double ? '"' : '\'';
  constexpr char kHex[] = "0123456789abcdef";
  out += quote;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = code_point_at(text, i);
    const auto piece = text.substr(i, static_cast<std::size_t>(c.length));
    i += piece.size();
    if (piece[0] == quote || piece[0] == '\\') {
      out += '\\';
      out += piece;
    } else if (piece[0] == '\n' || piece[0] == '\r' || piece[0] == '\t') {
      out += piece[0] == '\n' ? "\\n" : piece[0] == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c.value)) {
      out += piece;
    } else {
      const int width = c.value < 0x100 ? 2 : c.value < 0x10000 ? 4 : 8;
      out += width == 2 ? "\\x" : width == 4 ? "\\u" : "\\U";
      for (int k = width - 1; k >= 0; --k) out += kHex[c.value >> (4 * k) & 15];
    }
  }
  out += quote;
}

// repr() of what has one: not of a namespace, which can hold itself.
class Printer {
 public:
  std::string print(const Value& value) {
    append(value);
    return std::move(out_);
  }

 private:
  void append(const Value& value) {
    if (const Text* text = value.text()) {
      if (text->markup) out_ += "Markup(";
      append_repr(out_, text->bytes());
      if (text->markup) out_ += ')';
    } else if (const Sequence* sequence = value.sequence()) {
      append_sequence(*sequence);
    } else if (const Dict* dict = value.dict()) {
      append_dict(*dict);
    } else {
      append_scalar(value);
    }
  }

  void append_scalar(const Value& value) {
    if (value.is_undefined()) {
      out_ += "Undefined";
    } else if (value.is_none()) {
      out_ += "None";
    } else if (const bool* flag = value.get<bool>()) {
      out_ += *flag ? "True" : "False";
    } else if (const int64_t* integer = value.get<int64_t>()) {
      out_ += std::to_string(*integer);
    } else if (const double* real = value.get<double>()) {
      out_ += float_repr(*real);
    } else {
      fail("cannot print a " + type_name(value));
    }
  }

  void append_sequence(const Sequence& sequence) {
    if (sequence.flavor == Flavor::kIterator) fail("cannot print a generator; use |list or |join");
    if (sequence.flavor == Flavor::kRange) {
      out_ += "range(" + std::to_string(sequence.start) + ", " + std::to_string(sequence.stop);
      if (sequence.step != 1) out_ += ", " + std::to_string(sequence.step);
      out_ += ')';
      return;
    }
    const bool tuple = sequence.flavor == Flavor::kTuple;
    const bool view = sequence.flavor >= Flavor::kKeys;
    if (view) out_ += type_name_of(sequence) + '(';
    out_ += tuple ? '(' : '[';
    for (std::size_t i = 0; i < sequence.items.size(); ++i) {
      if (i > 0) out_ += ", ";
      append(sequence.items[i]);
    }
    if (tuple && sequence.items.size() == 1) out_ += ',';
    out_ += tuple ? ')' : ']';
    if (view) out_ += ')';
  }

  static std::string type_name_of(const Sequence& sequence) {
    return std::string(kSequenceTypes[static_cast<int>(sequence.flavor)]);
  }

  void append_dict(const Dict& dict) {
    out_ += '{';
    for (std::size_t i = 0; i < dict.entries.size(); ++i) {
      if (i > 0) out_ += ", ";
      append(dict.entries[i].first);
      out_ += ": ";
      append(dict.entries[i].second);
    }
    out_ += '}';
  }

  std::string out_;
};

Values characters(const Text& text) {
  Values items;
  for (std::size_t i = 0; i < text.size();) {
    const auto length = static_cast<std::size_t>(code_point_at(text.bytes(), i).length);
    Text character = text.slice(i, i + length);
    character.markup = false;  // as Python iterates over it
    items.push_back(Value::string(std::move(character)));
    i += length;
  }
  return items;
}

Value from_json_at(const nlohmann::ordered_json& json, bool literal, int depth) {
  if (depth > kMaxContainerDepth) fail("the variables nest too deeply");
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::null:
      return Value(nullptr, literal);
    case Type::boolean:
      return Value(json.get<bool>(), literal);
    case Type::number_integer:
      return Value(json.get<int64_t>(), literal);
    case Type::number_unsigned:
      if (json.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
        fail("an integer of the variables does not fit in 64 bits");
      }
      return Value(json.get<int64_t>(), literal);
    case Type::number_float:
      return Value(json.get<double>(), literal);
    case Type::string:
      return Value::string(json.get_ref<const std::string&>(), literal);
    case Type::array: {
      Values items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json_at(item, literal, depth + 1));
      return make_sequence(Flavor::kList, std::move(items));
    }
    case Type::object: {
      auto dict = std::make_shared<Dict>();
      for (auto it = json.begin(); it != json.end(); ++it) {
        dict->set(Value::string(it.key(), literal), from_json_at(it.value(), literal, depth + 1));
      }
      return Value(std::move(dict));
    }
    default:
      fail("the variables hold something that is not JSON");
  }
}

}  // namespace

void fail(const std::string& message) { throw Failure(message); }

std::string in_quotes(std::string_view name) {
  std::string out;
  out += '\'';
  out += name;
  out += '\'';
  return out;
}

Text::Text(std::string bytes, bool literal) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), literal});
}

bool Text::literal() const { return runs_.empty() || (runs_.size() == 1 && runs_[0].literal); }

Text Text::slice(std::size_t begin, std::size_t end) const {
  Text out;
  out.markup = markup;
  if (begin >= end) return out;
  out.bytes_ = bytes_.substr(begin, end - begin);
  auto run = std::upper_bound(runs_.begin(), runs_.end(), begin,
                              [](std::size_t at, const Run& r) { return at < r.end; });
  for (; run != runs_.end(); ++run) {
    out.runs_.push_back({std::min(run->end, end) - begin, run->literal});
    if (run->end >= end) break;
  }
  return out;
}

void Text::append(const Text& other) {
  const std::size_t base = bytes_.size();
  const std::size_t count = other.runs_.size();  // `other` may be this one
  bytes_ += other.bytes_;
  for (std::size_t i = 0; i < count; ++i) {
    const Run run = other.runs_[i];
    if (!runs_.empty() && runs_.back().literal == run.literal) {
      runs_.back().end = base + run.end;
    } else {
      runs_.push_back({base + run.end, run.literal});
    }
  }
}

void Text::append(std::string_view bytes, bool literal) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().literal == literal) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), literal});
  }
}

Value Value::undefined(std::string why) {
  return Value(Undefined{std::make_shared<const std::string>(std::move(why))});
}

Value Value::string(Text text) {
  return Value(std::shared_ptr<const Text>(std::make_shared<Text>(std::move(text))));
}

const Text* Value::text() const {
  const auto* text = get<std::shared_ptr<const Text>>();
  return text == nullptr ? nullptr : text->get();
}

Sequence* Value::sequence() const {
  const auto* sequence = get<std::shared_ptr<Sequence>>();
  return sequence == nullptr ? nullptr : sequence->get();
}

const Dict* Value::dict() const {
  const auto* dict = get<std::shared_ptr<Dict>>();
  return dict == nullptr ? nullptr : dict->get();
}

bool Value::literal() const {
  if (const Text* string = text()) return string->literal();
  if (const Sequence* list = sequence()) return list->extent.literal;
  if (const Dict* map = dict()) return map->extent.literal;
  return literal_;
}

const Value* Dict::find(std::string_view key) const {
  const auto found = index.find(std::string(key));
  return found == index.end() ? nullptr : &entries[found->second].second;
}

const Value* Dict::find(const Value& key) const {
  if (!hashable(key)) fail("unhashable type: '" + type_name(key) + "'");
  if (is_string_key(key)) return find(key.text()->bytes());
  for (const auto& entry : entries) {
    if (!is_string_key(entry.first) && equal(entry.first, key)) return &entry.second;
  }
  return nullptr;
}

void Dict::set(const Value& key, Value value) {
  if (Value* old = const_cast<Value*>(find(key))) {
    extent.add(value);
    *old = std::move(value);
    return;
  }
  extent.add(key);
  extent.add(value);
  if (is_string_key(key)) {
    index.emplace(key.text()->bytes(), entries.size());
  } else if (entries.size() - index.size() == kMaxOtherKeys) {
    fail("dict with too many keys that are no strings");
  }
  entries.emplace_back(key, std::move(value));
}

void Extent::add(const Value& member) {
  const Extent other = extent_of(member);
  depth = std::max(depth, other.depth + 1);
  weight += other.weight;
  literal = literal && member.literal();
  if (depth > kMaxContainerDepth) fail("containers nest too deeply");
  if (weight > kMaxWeight) fail("container holds too much");
}

Extent extent_of(const Value& value) {
  if (const Text* text = value.text()) {
    return {0, 8 + static_cast<int64_t>(text->size()), text->literal()};
  }
  if (const Sequence* sequence = value.sequence()) return sequence->extent;
  if (const Dict* dict = value.dict()) return dict->extent;
  if (const auto* callable = value.get<std::shared_ptr<const Callable>>()) {
    return (*callable)->extent;
  }
  return {};
}

Value make_sequence(Flavor flavor, Values items) {
  auto sequence = std::make_shared<Sequence>();
  sequence->flavor = flavor;
  for (const Value& item : items) sequence->extent.add(item);
  sequence->items = std::move(items);
  return Value(std::move(sequence));
}

Value make_range(int64_t start, int64_t stop, int64_t step, int64_t count, bool literal) {
  Values items;
  items.reserve(static_cast<std::size_t>(count));
  for (int64_t i = 0; i < count; ++i) items.emplace_back(start + i * step, literal);
  Value range = make_sequence(Flavor::kRange, std::move(items));
  range.sequence()->start = start;
  range.sequence()->stop = stop;
  range.sequence()->step = step;
  return range;
}

Value from_json(const nlohmann::ordered_json& json, bool literal) {
  return from_json_at(json, literal, 0);
}

void Namespace::set(const std::string& name, Value value) {
  const auto found = index.find(name);
  if (found != index.end()) {
    values[found->second] = std::move(value);
  } else {
    index.emplace(name, values.size());
    values.push_back(std::move(value));
  }
}

const Value* Namespace::find(const std::string& name) const {
  const auto found = index.find(name);
  return found == index.end() ? nullptr : &values[found->second];
}

std::string type_name(const Value& value) {
  constexpr std::string_view kNames[] = {"Undefined", "NoneType", "bool",       "int",
                                         "float",     "str",      "",           "dict",
                                         "Namespace", "function", "LoopContext"};
  if (const Sequence* sequence = value.sequence()) {
    return std::string(kSequenceTypes[static_cast<int>(sequence->flavor)]);
  }
  return std::string(kNames[value.data().index()]);
}

bool truthy(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (is_number(value)) return number(value, "").f != 0;
  if (const Text* text = value.text()) return text->size() > 0;
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  if (const Sequence* sequence = value.sequence()) {
    return sequence->flavor == Flavor::kIterator || !sequence->items.empty();
  }
  return true;
}

bool equal(const Value& a, const Value& b) {
  if (is_number(a) && is_number(b)) return equal_numbers(number(a, ""), number(b, ""));
  if (a.data().index() != b.data().index()) return false;
  if (const Text* text = a.text()) return text->bytes() == b.text()->bytes();
  if (const Sequence* sequence = a.sequence()) return equal_sequences(*sequence, *b.sequence());
  if (const Dict* dict = a.dict()) return equal_dicts(*dict, *b.dict());
  if (const auto* space = a.get<std::shared_ptr<Namespace>>()) {
    return *space == *b.get<std::shared_ptr<Namespace>>();
  }
  if (a.get<std::shared_ptr<const Callable>>() != nullptr) {
    fail("comparing functions is not supported");
  }
  return true;  // both undefined or both None
}

bool less(const Value& a, const Value& b) {
  if (is_number(a) && is_number(b)) {
    const Number x = number(a, ""), y = number(b, "");
    return x.is_float || y.is_float ? x.f < y.f : x.i < y.i;
  }
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) fail(value->why_undefined());
  }
  const Text *text_a = a.text(), *text_b = b.text();
  if (text_a != nullptr && text_b != nullptr) return text_a->bytes() < text_b->bytes();
  const Sequence *list_a = a.sequence(), *list_b = b.sequence();
  if (list_a != nullptr && list_b != nullptr && list_a->flavor == list_b->flavor &&
      list_a->flavor <= Flavor::kTuple) {
    const std::size_t common = std::min(list_a->items.size(), list_b->items.size());
    for (std::size_t i = 0; i < common; ++i) {
      if (!equal(list_a->items[i], list_b->items[i])) {
        return less(list_a->items[i], list_b->items[i]);
      }
    }
    return list_a->items.size() < list_b->items.size();
  }
  fail("no order between '" + type_name(a) + "' and '" + type_name(b) + "'");
}

bool contains(const Value& container, const Value& item) {
  if (const Text* text = container.text()) {
    if (item.is_undefined()) fail(item.why_undefined());
    if (item.text() == nullptr) {
      fail("'in <string>' requires string as left operand, not " + type_name(item));
    }
    return text->bytes().find(item.text()->bytes()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) return dict->find(item) != nullptr;
  const Values items = iterate(container);
  return std::any_of(items.begin(), items.end(),
                     [&item](const Value& other) { return equal(other, item); });
}

bool hashable(const Value& value) {
  if (value.dict() != nullptr) return false;
  const Sequence* sequence = value.sequence();
  if (sequence == nullptr) return true;
  if (sequence->flavor == Flavor::kRange) return true;
  return sequence->flavor == Flavor::kTuple &&
         std::all_of(sequence->items.begin(), sequence->items.end(), hashable);
}

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<std::size_t>(end.ptr - buffer));
  const std::size_t mark = text.find('e');
  std::string digits;
  for (const char c : text.substr(0, mark)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  const int exponent = std::stoi(std::string(text.substr(mark + 1)));
  const std::string sign = text[0] == '-' ? "-" : "";
  const auto count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {  // where Python's repr goes over to an exponent
    if (count > 1) digits.insert(1, ".");
    return sign + digits + std::string(text.substr(mark));
  }
  if (exponent < 0)
    return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1) {
    return sign + digits + std::string(static_cast<std::size_t>(exponent + 1 - count), '0') + ".0";
  }
  return sign + digits.insert(static_cast<std::size_t>(exponent) + 1, ".");
}

Text repr(const Value& value) {
  const bool literal = value.literal();
  return Text(Printer().print(value), literal);
}

Text to_text(const Value& value) {
  if (const Text* text = value.text()) return *text;
  if (value.is_undefined()) return Text();
  return repr(value);
}

int64_t length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (const Text* text = value.text()) return count_characters(text->bytes());
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->entries.size());
  const Sequence* sequence = value.sequence();
  if (sequence == nullptr || sequence->flavor == Flavor::kIterator) {
    fail("object of type '" + type_name(value) + "' has no len()");
  }
  return static_cast<int64_t>(sequence->items.size());
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.text() != nullptr || value.dict() != nullptr ||
         value.sequence() != nullptr;
}

Values iterate(const Value& value) {
  if (value.is_undefined()) return {};
  if (const Text* text = value.text()) return characters(*text);
  if (const Dict* dict = value.dict()) {
    Values keys;
    keys.reserve(dict->entries.size());
    for (const auto& entry : dict->entries) keys.push_back(entry.first);
    return keys;
  }
  Sequence* sequence = value.sequence();
  if (sequence == nullptr) fail(in_quotes(type_name(value)) + " object is not iterable");
  if (sequence->flavor != Flavor::kIterator) return sequence->items;
  return std::exchange(sequence->items, {});
}

bool is_number(const Value& value) {
  return value.get<bool>() != nullptr || value.get<int64_t>() != nullptr ||
         value.get<double>() != nullptr;
}

Number number(const Value& value, std::string_view what) {
  if (const bool* flag = value.get<bool>()) return {false, *flag, static_cast<double>(*flag)};
  if (const auto* integer = value.get<int64_t>()) {
    return {false, *integer, static_cast<double>(*integer)};
  }
  if (const double* real = value.get<double>()) return {true, 0, *real};
  if (value.is_undefined()) fail(value.why_undefined());
  fail(std::string(what) + ": expected a number, found " + type_name(value));
}

const int64_t* as_integer(const Value& value, int64_t& storage) {
  if (const bool* flag = value.get<bool>()) {
    storage = *flag;
    return &storage;
  }
  return value.get<int64_t>();
}

int64_t integer(const Value& value, std::string_view what) {
  int64_t storage = 0;
  if (const int64_t* found = as_integer(value, storage)) return *found;
  if (value.is_undefined()) fail(value.why_undefined());
  fail(std::string(what) + ": expected an integer, found " + type_name(value));
}

}  // namespace crumb::tokenizer::jinja
