#include "tokenizer/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "tokenizer/chat_template.h"
#include "tokenizer/jinja_unicode.h"
#include "tokenizer/utf8.h"

namespace crumb::tokenizer::jinja {
namespace {

// Longer ones first.
constexpr std::array<std::string_view, 26> kOperators = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name_part(char c) { return is_name_start(c) || is_digit(c); }
bool is_high(char c) { return static_cast<unsigned char>(c) >= 0x80; }

std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)), rest_(source_) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) lex_data();
    add(TokenKind::kEnd, pos_);
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void error(const std::string& what, std::size_t at) {
    const Place place = place_of(at);
    throw TemplateError(what, place.line, place.column);
  }

  // Counts line ends from where the last call stopped, so all calls together are linear.
  Place place_of(std::size_t at) {
    if (at < counted_) {
      counted_ = 0;
      line_ = 1;
      line_start_ = 0;
    }
    for (; counted_ < at; ++counted_) {
      if (source_[counted_] == '\n') {
        ++line_;
        line_start_ = counted_ + 1;
      }
    }
    return {line_, static_cast<int>(at - line_start_) + 1};
  }

  Token& add(TokenKind kind, std::size_t at, std::string text = {}) {
    tokens_.push_back({kind, place_of(at), std::move(text)});
    return tokens_.back();
  }

  char at(std::size_t i) const { return i < source_.size() ? source_[i] : '\0'; }
  std::size_t skip_space(std::size_t i) const {
    return i + strip(rest_.substr(std::min(i, rest_.size())), nullptr, true, false).begin;
  }
  bool looking_at(std::size_t i, std::string_view text) const {
    return i <= rest_.size() && rest_.substr(i, text.size()) == text;
  }

  void lex_data() {
    std::size_t tag = pos_;
    do {
      tag = source_.find('{', tag);
    } while (tag != std::string::npos && at(tag + 1) != '%' && at(tag + 1) != '{' &&
             at(tag + 1) != '#' && ++tag);
    if (tag == std::string::npos) {
      add(TokenKind::kData, pos_, source_.substr(pos_));
      pos_ = source_.size();
      return;
    }
    const char kind = at(tag + 1);
    const char sign = at(tag + 2);
    const bool has_sign = sign == '-' || sign == '+';
    add_data(pos_, tag, has_sign ? sign : '\0', kind != '{');
    const std::size_t inside = tag + 2 + (has_sign ? 1 : 0);
    if (kind == '#') {
      lex_comment(tag, inside);
    } else if (kind == '%' && lex_raw(tag, inside)) {
      return;
    } else {
      lex_tag(tag, inside, kind == '%');
    }
  }

  // Text before a tag: "-" takes all white space before the tag away, and a tag that is no print
  // statement takes the blanks away if it is the first thing on its line, unless it says "+".
  void add_data(std::size_t begin, std::size_t end, char sign, bool strips_line) {
    const std::string_view text = rest_.substr(begin, end - begin);
    std::size_t kept = text.size();
    if (sign == '-') {
      kept = strip(text, nullptr, false, true).end;
    } else if (sign != '+' && strips_line) {
      const std::size_t newline = text.rfind('\n');
      const std::size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line > 0 || line_starting_) &&
          strip(text.substr(line), nullptr, true, false).begin == text.size() - line) {
        kept = line;
      }
    }
    if (kept > 0) add(TokenKind::kData, begin, std::string(text.substr(0, kept)));
  }

  // After the "}" of a tag's end: what the tag's end takes away behind it.
  void finish_tag(std::size_t after, char sign, bool trims_newline) {
    std::size_t end = after;
    if (sign == '-') {
      end = skip_space(after);
    } else if (sign != '+' && trims_newline && at(after) == '\n') {
      ++end;
    }
    line_starting_ = end > 0 && source_[end - 1] == '\n';
    pos_ = end;
  }

  void lex_comment(std::size_t tag, std::size_t inside) {
    const std::size_t end = source_.find("#}", inside);
    if (end == std::string::npos) error("comment without #}", tag);
    const char sign = end > inside ? at(end - 1) : '\0';
    finish_tag(end + 2, sign, true);
  }

  // {% raw %}: text up to {% endraw %} as it stands. False if the tag is another one.
  bool lex_raw(std::size_t tag, std::size_t inside) {
    std::size_t i = skip_space(inside);
    if (!looking_at(i, "raw")) return false;
    i = skip_space(i + 3);
    const bool strips = looking_at(i, "-%}");
    if (!strips && !looking_at(i, "%}")) return false;
    finish_tag(i + (strips ? 3 : 2), strips ? '-' : '\0', false);
    for (std::size_t end = source_.find("{%", pos_); end != std::string::npos;
         end = source_.find("{%", end + 1)) {
      const char sign = at(end + 2);
      const bool has_sign = sign == '-' || sign == '+';
      i = skip_space(end + 2 + (has_sign ? 1 : 0));
      if (!looking_at(i, "endraw")) continue;
      i = skip_space(i + 6);
      const char end_sign = at(i);
      if (end_sign == '-' || end_sign == '+') ++i;
      if (!looking_at(i, "%}")) continue;
      add_data(pos_, end, has_sign ? sign : '\0', true);
      finish_tag(i + 2, end_sign, true);
      return true;
    }
    error("{% raw %} without {% endraw %}", tag);
  }

  void lex_tag(std::size_t tag, std::size_t inside, bool block) {
    add(block ? TokenKind::kBlockBegin : TokenKind::kPrintBegin, tag);
    const std::string_view closing = block ? "%}" : "}}";
    std::string brackets;
    pos_ = inside;
    while (true) {
      pos_ = skip_space(pos_);
      if (pos_ >= source_.size()) {
        error(block ? "statement without %}" : "print statement without }}", tag);
      }
      const char sign = at(pos_);
      const bool signed_end =
          (sign == '-' || (block && sign == '+')) && looking_at(pos_ + 1, closing);
      if (brackets.empty() && (signed_end || looking_at(pos_, closing))) {
        add(block ? TokenKind::kBlockEnd : TokenKind::kPrintEnd, pos_);
        finish_tag(pos_ + (signed_end ? 3 : 2), signed_end ? sign : '\0', block);
        return;
      }
      lex_token(brackets);
    }
  }

  void lex_token(std::string& brackets) {
    const char c = at(pos_);
    if (is_digit(c)) {
      lex_number();
    } else if (is_name_start(c)) {
      const std::size_t begin = pos_;
      while (is_name_part(at(pos_))) ++pos_;
      if (is_high(at(pos_))) error("a name may hold ASCII letters, digits and _ only", begin);
      add(TokenKind::kName, begin, source_.substr(begin, pos_ - begin));
    } else if (c == '\'' || c == '"') {
      lex_string();
    } else {
      lex_operator(brackets);
    }
  }

  void lex_operator(std::string& brackets) {
    const auto found = std::find_if(kOperators.begin(), kOperators.end(),
                                    [this](std::string_view op) { return looking_at(pos_, op); });
    if (found == kOperators.end()) {
      error(is_high(at(pos_)) ? "unexpected character outside a string"
                              : std::string("unexpected character '") + at(pos_) + "'",
            pos_);
    }
    const char c = found->front();
    if (c == '(' || c == '[' || c == '{') {
      brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty()) error(std::string("unexpected '") + c + "'", pos_);
      if (brackets.back() != c) {
        error(std::string("unexpected '") + c + "', expected '" + brackets.back() + "'", pos_);
      }
      brackets.pop_back();
    }
    add(TokenKind::kOperator, pos_, std::string(*found));
    pos_ += found->size();
  }

  // Digits with single underscores between them; the end, or `i` if there are none.
  template <typename IsDigit>
  std::size_t digits(std::size_t i, IsDigit is_one) const {
    if (!is_one(at(i))) return i;
    while (is_one(at(i)) || (at(i) == '_' && is_one(at(i + 1)))) ++i;
    return i;
  }

  void lex_number() {
    const std::size_t begin = pos_;
    const std::size_t whole = digits(begin, is_digit);
    std::size_t end = whole;
    // "x.0.1" is two subscripts, not one with a fraction.
    if (begin == 0 || source_[begin - 1] != '.') {
      if (at(end) == '.') {
        const std::size_t fraction = digits(end + 1, is_digit);
        if (fraction > end + 1) end = fraction;
      }
      if (at(end) == 'e' || at(end) == 'E') {
        const std::size_t sign = end + 1 + (at(end + 1) == '+' || at(end + 1) == '-' ? 1 : 0);
        const std::size_t exponent = digits(sign, is_digit);
        if (exponent > sign) end = exponent;
      }
    }
    if (end == whole) return lex_integer();
    std::string text = source_.substr(begin, end - begin);
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    Token& token = add(TokenKind::kFloat, begin, text);
    token.number = std::strtod(text.c_str(), nullptr);
    pos_ = end;
  }

  void lex_integer() {
    const std::size_t begin = pos_;
    const char prefix = static_cast<char>(at(begin + 1) | 0x20);
    int base = 10;
    if (at(begin) == '0' && (prefix == 'x' || prefix == 'o' || prefix == 'b')) {
      base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : 2;
    }
    const auto is_one = [base](char c) {
      const char lower = static_cast<char>(c | 0x20);
      return base == 16 && !is_digit(c) ? lower >= 'a' && lower <= 'f'
                                        : c >= '0' && c < '0' + std::min(base, 10);
    };
    std::size_t first = begin + (base == 10 ? 0 : 2);
    std::size_t end = digits(first, is_one);
    if (base != 10 && end == first) {  // "0x" alone is the number 0 and a name
      base = 10;
      first = begin;
      end = begin + 1;
    }
    if (base == 10 && at(begin) == '0') {
      end = digits(begin, [](char c) { return c == '0'; });
    }
    std::string text = source_.substr(first, end - first);
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    Token& token = add(TokenKind::kInteger, begin, text);
    const auto [stop, code] =
        std::from_chars(text.data(), text.data() + text.size(), token.integer, base);
    if (code != std::errc() || stop != text.data() + text.size()) {
      error("integer does not fit in 64 bits", begin);
    }
    pos_ = end;
  }

  void lex_string() {
    const std::size_t begin = pos_;
    const char quote = at(pos_++);
    std::string text;
    while (at(pos_) != quote) {
      if (pos_ >= source_.size()) error("string without its closing quote", begin);
      if (at(pos_) == '\\') {
        lex_escape(text, begin);
      } else {
        text += at(pos_++);
      }
    }
    ++pos_;
    add(TokenKind::kString, begin, std::move(text));
  }

  void lex_escape(std::string& text, std::size_t begin) {
    constexpr std::string_view kSimple = "\\'\"abfnrtv", kMeaning = "\\'\"\a\b\f\n\r\t\v";
    const std::size_t start = pos_++;
    if (pos_ >= source_.size()) error("string without its closing quote", begin);
    const char c = at(pos_);
    if (const std::size_t k = kSimple.find(c); k != std::string_view::npos) {
      text += kMeaning[k];
      ++pos_;
    } else if (c == '\n') {
      ++pos_;
    } else if (c >= '0' && c <= '7') {
      uint32_t value = 0;
      for (int digit = 0; digit < 3 && at(pos_) >= '0' && at(pos_) <= '7'; ++digit) {
        value = value * 8 + static_cast<uint32_t>(at(pos_++) - '0');
      }
      append_utf8(text, value);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      lex_hex_escape(text, start, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else if (c == 'N' || is_high(c)) {
      error("this escape is not supported", start);
    } else {
      text += '\\';  // Python keeps an escape it does not know
    }
  }

  void lex_hex_escape(std::string& text, std::size_t start, std::size_t width) {
    const char* first = source_.data() + pos_ + 1;
    const char* last = std::min(first + width, source_.data() + source_.size());
    uint32_t value = 0;
    const auto [stop, code] = std::from_chars(std::min(first, last), last, value, 16);
    if (code != std::errc() || stop != first + width || value > 0x10FFFF ||
        (value >= 0xD800 && value < 0xE000)) {
      error("escape that is no character", start);
    }
    append_utf8(text, value);
    pos_ += 1 + width;
  }

  const std::string source_;
  const std::string_view rest_;
  std::vector<Token> tokens_;
  std::size_t pos_ = 0;
  bool line_starting_ = true;
  std::size_t counted_ = 0, line_start_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace crumb::tokenizer::jinja
