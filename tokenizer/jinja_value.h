// The values of a template: Python's, as far as templates use them. Strings remember which of their
// bytes are the template's own text (literal) and which stem from a variable.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace crumb::tokenizer::jinja {

// What goes wrong inside an operation; the evaluator knows the place and makes a TemplateError of
// it.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};
[[noreturn]] void fail(const std::string& message);
// 'name', for messages.
std::string in_quotes(std::string_view name);

// A string in runs of equal origin. Neighbouring runs differ; no run is empty.
class Text {
 public:
  Text() = default;
  Text(std::string bytes, bool literal);

  const std::string& bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  // Whether nothing stems from a variable.
  bool literal() const;
  Text slice(std::size_t begin, std::size_t end) const;
  void append(const Text& other);
  void append(std::string_view bytes, bool literal);

  struct Run {
    std::size_t end;
    bool literal;
  };
  const std::vector<Run>& runs() const { return runs_; }

  bool markup = false;  // came from the filters safe or escape: `+` escapes what joins it

 private:
  std::string bytes_;
  std::vector<Run> runs_;
};

class Value;
struct Sequence;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;
struct Scope;
struct Stmt;
using Values = std::vector<Value>;

struct Undefined {
  std::shared_ptr<const std::string> why;  // "'x' is undefined"
};

class Value {
 public:
  using Data =
      std::variant<Undefined, std::nullptr_t, bool, int64_t, double, std::shared_ptr<const Text>,
                   std::shared_ptr<Sequence>, std::shared_ptr<Dict>, std::shared_ptr<Namespace>,
                   std::shared_ptr<const Callable>, std::shared_ptr<Loop>>;

  Value() : data_(nullptr) {}  // None
  template <typename T>
  explicit Value(T data, bool literal = true) : data_(std::move(data)), literal_(literal) {}

  static Value undefined(std::string why);
  static Value string(Text text);
  static Value string(std::string bytes, bool literal) {
    return string(Text(std::move(bytes), literal));
  }

  template <typename T>
  const T* get() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_none() const { return get<std::nullptr_t>() != nullptr; }
  const Text* text() const;
  Sequence* sequence() const;
  const Dict* dict() const;
  const std::string& why_undefined() const { return *get<Undefined>()->why; }

  // Whether nothing of it stems from a variable; looks into strings and containers.
  bool literal() const;
  // Only for numbers, truth values and None: where their printed text comes from.
  bool scalar_literal() const { return literal_; }
  const Data& data() const { return data_; }

 private:
  Data data_;
  bool literal_ = true;
};

enum class Flavor { kList, kTuple, kRange, kIterator, kKeys, kValues, kItems };

// Containers nest at most kMaxContainerDepth deep and hold at most kMaxWeight in all, counted as if
// nothing in them were shared: so walking, printing and freeing them can recurse and ends.
inline constexpr int kMaxContainerDepth = 128;
inline constexpr int64_t kMaxWeight = 1 << 25;

struct Extent {
  int depth = 0;
  int64_t weight = 8;  // about the bytes
  bool literal = true;
  // Takes a member in; fails at the bounds.
  void add(const Value& member);
};

struct Sequence {
  Flavor flavor = Flavor::kList;
  Values items;
  Extent extent;
  int64_t start = 0, stop = 0, step = 1;  // of a range
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  std::unordered_map<std::string, std::size_t> index;  // of the keys that are strings
  Extent extent;

  const Value* find(const Value& key) const;  // fails if the key cannot be hashed
  const Value* find(std::string_view key) const;
  void set(const Value& key, Value value);
};

// The only thing a template can change. It can hold itself, so it is never walked.
struct Namespace {
  std::unordered_map<std::string, std::size_t> index;
  Values values;

  void set(const std::string& name, Value value);
  const Value* find(const std::string& name) const;
};

// What a template can call: a macro, a function of the environment, a method bound to its object.
struct Callable {
  std::string name;
  Value self;                   // of a method
  const Stmt* macro = nullptr;  // a macro, or a call block (its caller)
  std::weak_ptr<Scope> scope;   // where the macro was defined
  Extent extent;
};

Value make_sequence(Flavor flavor, Values items);
Value make_range(int64_t start, int64_t stop, int64_t step, int64_t count, bool literal);
Extent extent_of(const Value& value);

// Variables into values; every string, number and truth value in them is not literal unless
// `literal`.
Value from_json(const nlohmann::ordered_json& json, bool literal);

// Python's names of types: "str", "int", "dict_items", ...
std::string type_name(const Value& value);
bool truthy(const Value& value);
bool equal(const Value& a, const Value& b);
// a < b; fails as Python does if the two have no order.
bool less(const Value& a, const Value& b);
// `item in container`
bool contains(const Value& container, const Value& item);
bool hashable(const Value& value);
// str() and repr(); fail on what Python prints with an address.
Text to_text(const Value& value);
Text repr(const Value& value);
std::string float_repr(double value);

// Number of items; fails as len() does.
int64_t length(const Value& value);
// The items a for loop sees: of a dict its keys, of a string its characters. Uses an iterator up.
Values iterate(const Value& value);
bool is_iterable(const Value& value);

// bool, int and float as a number; fails naming `what` otherwise.
struct Number {
  bool is_float;
  int64_t i;
  double f;
};
bool is_number(const Value& value);
Number number(const Value& value, std::string_view what);
// int or bool as an integer.
const int64_t* as_integer(const Value& value, int64_t& storage);
int64_t integer(const Value& value, std::string_view what);

struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false, has_indent = false;
  std::string indent;
  std::string item_separator = ", ", key_separator = ": ";
};
// json.dumps(); fails beyond `limit` bytes.
Text to_json(const Value& value, const JsonStyle& style, std::size_t limit);

}  // namespace crumb::tokenizer::jinja
