// Methods of strings, dicts and lists, and arguments of calls.
#pragma once
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/jinja_ops.h"
#include "tokenizer/jinja_value.h"

namespace crumb::tokenizer::jinja {

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

// Arguments in the order of a signature; null where the caller gave none.
class Bound {
 public:
  // `signature` is "name,name,...": the first `required` must be given; names that end in "/" are
  // positional only. Fails naming `function`.
  Bound(std::string_view function, std::string_view signature, int required,
        const Arguments& arguments);
  const Value* operator[](std::size_t i) const { return values_[i]; }
  bool truth(std::size_t i, bool standard) const;
  bool given(std::size_t i) const { return values_[i] != nullptr && !values_[i]->is_none(); }

 private:
  std::vector<const Value*> values_;
};

// What is wrong with that many positional arguments and these keywords, or nothing.
std::string check_arguments(std::string_view function, std::string_view signature, int required,
                            std::size_t positional, const std::vector<std::string_view>& keywords);

// Fails on a name that Python's type has and that is not supported here.
bool has_method(const Value& object, const std::string& name);
Value bound_method(const Value& object, const std::string& name);
Value call_method(Meter& meter, const Callable& method, const Arguments& arguments);

// The string of a value that has to be one; fails naming `what`.
const Text& string_of(const Value& value, std::string_view what);

// str.replace() with at most `count` replacements if that is not negative.
Text replaced(Meter& meter, const Text& text, const Text& from, const Text& to, int64_t count);
Text stripped(const Text& text, const Value* set, bool left, bool right);

}  // namespace crumb::tokenizer::jinja
