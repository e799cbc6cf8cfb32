#include "engine/json_regex.h"

#include <algorithm>
#include <string>

#include "engine/json_pattern.h"

namespace crumb::json {
namespace {

constexpr int kMaxGroups = 64;        // one in the other
constexpr int32_t kMaxRepeat = 1000;  // of {m,n}
constexpr std::size_t kMaxNodes = 20'000;

Class common(const Class& a, const Class& b) {
  Class out;
  for (const Range& x : a)
    for (const Range& y : b)
      if (std::max(x.first, y.first) <= std::min(x.last, y.last))
        out.push_back({std::max(x.first, y.first), std::min(x.last, y.last)});
  return normal(out);
}

Class without(const Class& from, const Class& what) {
  Class rest;
  char32_t begin = 0;
  for (const Range& r : what) {
    if (r.first > begin) rest.push_back({begin, r.first - 1});
    begin = r.last + 1;
  }
  rest.push_back({begin, 0x10FFFF});
  return common(from, rest);
}

// What "anything" writes: no control characters but these three, no half characters.
const Class kAny = {{'\t', '\n'}, {'\r', '\r'}, {' ', 0x7E}, {0x80, 0xD7FF}, {0xE000, 0x10FFFF}};
const Class kAscii = {{'\t', '\n'}, {'\r', '\r'}, {' ', 0x7E}};
const Class kDigit = {{'0', '9'}};
const Class kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Class kSpace = {{'\t', '\n'}, {'\r', '\r'}, {' ', ' '}};
const Class kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

class Parser {
 public:
  explicit Parser(std::string_view text) {
    for (std::size_t i = 0; i < text.size();) text_.push_back(decode(text, i));
  }

  int32_t parse() {
    const int32_t root = alternatives(0);
    if (at_ < text_.size()) fail("a ) without its (");
    return root;
  }

  std::vector<RegexNode> nodes;
  std::vector<Class> sets;

 private:
  [[noreturn]] static void fail(const std::string& what) { throw PatternError(what); }

  // The JSON reader has let nothing through that is not UTF-8.
  static char32_t decode(std::string_view text, std::size_t& i) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    const int more = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    char32_t c = more == 0 ? lead : lead & (0x3F >> more);
    for (int k = 0; k < more && i < text.size(); ++k)
      c = c << 6 | (static_cast<unsigned char>(text[i++]) & 0x3F);
    return c;
  }

  bool more() const { return at_ < text_.size(); }
  bool peek(char32_t c) const { return more() && text_[at_] == c; }
  bool take(char32_t c) {
    const bool is = peek(c);
    at_ += is ? 1 : 0;
    return is;
  }
  char32_t next() {
    if (!more()) fail("the pattern ends too early");
    return text_[at_++];
  }

  int32_t add(RegexNode node) {
    if (nodes.size() >= kMaxNodes) fail("the pattern is too large");
    nodes.push_back(std::move(node));
    return static_cast<int32_t>(nodes.size()) - 1;
  }
  int32_t class_node(Class set) {
    sets.push_back(std::move(set));
    return add({RegexNode::Kind::kClass, {}, sets.size() - 1});
  }
  int32_t anything() { return add({RegexNode::Kind::kRepeat, {class_node(kAny)}, 0, 0, kMany}); }

  // A pattern matches anywhere: what is not anchored has anything before and behind it.
  int32_t alternatives(int depth) {
    if (depth > kMaxGroups) fail("too many groups in groups");
    std::vector<int32_t> ways;
    do {
      std::vector<int32_t> parts;
      const bool outermost = depth == 0;
      if (outermost && !take('^')) parts.push_back(anything());
      bool ended = false;
      while (more() && !peek('|') && !peek(')')) {
        if (peek('$') && outermost && (at_ + 1 == text_.size() || text_[at_ + 1] == '|')) {
          ++at_;
          ended = true;
          break;
        }
        parts.push_back(repeated(depth));
      }
      if (outermost && !ended) parts.push_back(anything());
      ways.push_back(add({RegexNode::Kind::kSequence, std::move(parts)}));
    } while (take('|'));
    return ways.size() == 1 ? ways[0] : add({RegexNode::Kind::kChoice, std::move(ways)});
  }

  int32_t repeated(int depth) {
    int32_t one = atom(depth);
    for (;;) {
      int32_t low = 0, high = kMany;
      if (take('*')) {
      } else if (take('+')) {
        low = 1;
      } else if (take('?')) {
        high = 1;
      } else if (!peek('{') || !counts(low, high)) {
        return one;
      }
      take('?');  // lazy: the same strings
      if (peek('*') || peek('+') || peek('?')) fail("a repetition of a repetition");
      one = add({RegexNode::Kind::kRepeat, {one}, 0, low, high});
      if (peek('{')) fail("a repetition of a repetition");
    }
  }

  bool counts(int32_t& low, int32_t& high) {
    ++at_;
    const auto number = [&] {
      int32_t n = -1;
      while (more() && text_[at_] >= '0' && text_[at_] <= '9') {
        n = std::max(n, 0) * 10 + static_cast<int32_t>(text_[at_++] - '0');
        if (n > kMaxRepeat) fail("more than " + std::to_string(kMaxRepeat) + " repetitions");
      }
      return n;
    };
    low = high = number();
    if (low < 0) fail("a { that begins no {m,n} (write \\{)");
    if (take(',')) {
      high = number();
      if (high < 0) high = kMany;
    }
    if (!take('}')) fail("a { that begins no {m,n} (write \\{)");
    if (low > high) fail("{m,n} with m above n");
    return true;
  }

  int32_t atom(int depth) {
    const char32_t c = next();
    switch (c) {
      case '.':
        return class_node(without(kAny, kLineEnds));
      case '[':
        return class_node(bracket());
      case '(':
        return group(depth);
      case '\\': {
        Class set;
        if (!shorthand(set)) {
          const char32_t escaped = escape(false);
          set = {{escaped, escaped}};
        }
        return class_node(std::move(set));
      }
      case '^':
      case '$':
        fail("^ and $ are supported at the ends only");
      case '*':
      case '+':
      case '?':
      case '{':
        fail("a repetition of nothing");
      case ']':
      case '}':
        fail("a ] or } without its beginning (write \\] or \\})");
      default:
        return class_node({{c, c}});
    }
  }

  int32_t group(int depth) {
    if (take('?') && !take(':')) fail("(?.. is supported as (?: only");
    const int32_t inside = alternatives(depth + 1);
    if (!take(')')) fail("a ( without its )");
    return inside;
  }

  // \d and the like, behind the backslash. What is not in a class is written in ASCII only: the
  // dialects differ in what Unicode holds of it.
  bool shorthand(Class& set) {
    if (!more()) return false;
    switch (text_[at_]) {
      case 'd':
        set = kDigit;
        break;
      case 'w':
        set = kWord;
        break;
      case 's':
        set = kSpace;
        break;
      case 'D':
        set = without(kAscii, kDigit);
        break;
      case 'W':
        set = without(kAscii, kWord);
        break;
      case 'S':
        set = without(kAscii, kSpace);
        break;
      default:
        return false;
    }
    ++at_;
    return true;
  }

  char32_t hex(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const char32_t c = next();
      const int digit = c >= '0' && c <= '9'   ? static_cast<int>(c - '0')
                        : c >= 'a' && c <= 'f' ? static_cast<int>(c - 'a') + 10
                        : c >= 'A' && c <= 'F' ? static_cast<int>(c - 'A') + 10
                                               : -1;
      if (digit < 0) fail("\\x and \\u want two and four hexadecimal digits");
      value = value * 16 + static_cast<char32_t>(digit);
    }
    if (value >= 0xD800 && value <= 0xDFFF) fail("half a character (\\ud800 to \\udfff)");
    return value;
  }

  char32_t escape(bool in_class) {
    const char32_t c = next();
    switch (c) {
      case 't':
        return '\t';
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter && !(in_class && c == 'b')) fail("this escape is not supported");
    return letter ? '\b' : c;
  }

  Class bracket() {
    const bool negated = take('^');
    Class all;
    bool ascii = false;  // a negation of \D and the like stays where the dialects agree
    if (peek(']')) fail("[] and [^] are not supported");
    while (!take(']')) {
      Class set;
      const char32_t c = next();
      if (c == '[') fail("a [ in a class (write \\[)");
      char32_t first = c;
      if (c == '\\') {
        if (shorthand(set)) {
          ascii = true;
          if (peek('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']')
            fail("a range from a class");
          all.insert(all.end(), set.begin(), set.end());
          continue;
        }
        first = escape(true);
      }
      char32_t last = first;
      if (peek('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        last = next();
        if (last == '[') fail("a [ in a class (write \\[)");
        if (last == '\\') {
          if (shorthand(set)) fail("a range to a class");
          last = escape(true);
        }
        if (last < first) fail("a range of a class runs backwards");
      }
      all.push_back({first, last});
    }
    all = normal(std::move(all));
    if (negated) return without(ascii ? kAscii : kAny, all);
    return without(all, {{0xD800, 0xDFFF}});
  }

  std::vector<char32_t> text_;
  std::size_t at_ = 0;
};

}  // namespace

Class normal(Class ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.first < b.first; });
  Class out;
  for (const Range& r : ranges) {
    if (!out.empty() && r.first <= out.back().last + 1)
      out.back().last = std::max(out.back().last, r.last);
    else
      out.push_back(r);
  }
  return out;
}

Regex parse_regex(std::string_view pattern) {
  Parser parser(pattern);
  const int32_t root = parser.parse();
  return {std::move(parser.nodes), std::move(parser.sets), root};
}

}  // namespace crumb::json
